/* SenML packs as ../senml.py reads them: what is accepted here, it accepts, and the reverse. */
#ifndef FOGLINE_SENML_H
#define FOGLINE_SENML_H

#include "reader.h"

enum {
    DEVICE_BYTES = 8,
    MAX_PAYLOAD_BYTES = 16 * 1024,
    MAX_ROWS = 120,
    MAX_CHANNELS = 32,
    MAX_FAULTS = 32,
    MAX_FAULT_CODE_CHARS = 16,
    MAX_NAME_CHARS = 32,
    MAX_UNIT_CHARS = 16,
    MAX_UNIT_BYTES = 4 * MAX_UNIT_CHARS,
    CLOCK_BY_NTP = 1,
};

/* An enrolled channel: the table that a device's readings are held against. */
struct channel {
    double minimum;
    double maximum;
    uint8_t name_size;
    uint8_t unit_size;
    uint8_t name[MAX_NAME_CHARS];
    uint8_t unit[MAX_UNIT_BYTES];
};

struct channels {
    size_t count;
    struct channel of[MAX_CHANNELS];
};

/* What a pack says of the board's clock; `has_by`: also who gave it the time, a gateway or else. */
struct clock {
    uint64_t boot;
    uint64_t up_ms;
    bool has_by;
    bool by_gateway;
    uint8_t gateway[DEVICE_BYTES];
    uint64_t by;
};

/* `fits`: all readings are of one of the channels it was read with, in its unit and range.
 * `base_time`: s since 1970, or, at most 0, before the signature. */
struct pack {
    bool fits;
    uint8_t device[DEVICE_BYTES];
    uint64_t enterprise_number;
    int64_t base_time;
    size_t readings;
    size_t verdicts;
    bool has_clock;
    struct clock clock;
};

/* Whether the payload is a pack. `channels` may be NULL: then nothing fits. */
bool senml_read(struct span payload, const struct channels *channels, struct pack *pack);

/* Whether this is a name and a unit that a channel can have. */
bool senml_is_channel(struct span name, struct span unit);

#endif
