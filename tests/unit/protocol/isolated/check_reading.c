/* Reads messages from standard input, each after its length in four bytes, big-endian, and prints
 * one line each: 1 for a pack, 0 for anything else. Every message lies in a block of memory of just
 * its size, so that the address sanitizer sees a step beyond it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "envelope.h"
#include "senml.h"

static bool read_exactly(void *into, size_t size)
{
    return fread(into, 1, size, stdin) == size;
}

static struct channels some_channels(void)
{
    struct channels channels = {.count = 1};
    struct channel *channel = &channels.of[0];
    channel->minimum = -1e9;
    channel->maximum = 1e9;
    channel->name_size = 1;
    channel->name[0] = 'a';
    channel->unit_size = 1;
    channel->unit[0] = 'm';
    return channels;
}

static bool is_pack(struct span message, const struct channels *channels)
{
    struct envelope envelope;
    struct pack pack;
    uint8_t der[MAX_DER_BYTES];

    cbor_is_deterministic(message);
    /* Payloads are looked into whatever is around them: bare ones come too. */
    senml_read(message, channels, &pack);
    if (!envelope_read(message, &envelope)) {
        return false;
    }
    senml_read(envelope.payload, channels, &pack);
    signature_to_der(envelope.signature.bytes, der);
    return senml_read(envelope.payload, NULL, &pack)
           && memcmp(pack.device, envelope.kid.bytes, DEVICE_BYTES) == 0;
}

int main(void)
{
    struct channels channels = some_channels();
    uint8_t head[4];

    while (read_exactly(head, sizeof head)) {
        size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        uint8_t *bytes = malloc(size ? size : 1);
        if (bytes == NULL || !read_exactly(bytes, size)) {
            free(bytes);
            return 1;
        }
        puts(is_pack((struct span){bytes, size}, &channels) ? "1" : "0");
        free(bytes);
    }
    return 0;
}
