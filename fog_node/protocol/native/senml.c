#include "senml.h"

#include <math.h>
#include <string.h>

enum {
    DIGEST_PREFIX_BYTES = 8,
    MAX_ENTERPRISE_DIGITS = 10,
    /* Labels of SenML's fields (RFC 8428 section 6) as CBOR encodes them, in bytewise order. */
    NAME = 0x00,
    UNIT = 0x01,
    VALUE = 0x02,
    TEXT_VALUE = 0x03,
    BOOL_VALUE = 0x04,
    TIME = 0x06,
    DATA_VALUE = 0x08,
    BASE_NAME = 0x21,
    BASE_TIME = 0x22,
    CBOR_FALSE = 0xF4,
    CBOR_TRUE = 0xF5,
    /* Which fields a record has. */
    HAS_UNIT = 1 << 0,
    HAS_VALUE = 1 << 1,
    HAS_BOOL = 1 << 2,
    HAS_DATA = 1 << 3,
    HAS_NAME = 1 << 4,
    HAS_BASE_NAME = 1 << 5,
    HAS_BASE_TIME = 1 << 6,
    HAS_TEXT = 1 << 7,
    HAS_BASE = HAS_BASE_NAME | HAS_BASE_TIME,
};

static const char fault_prefix[] = "fault/";
static const double MAX_TIME_S = 1099511627776.0; /* 2^40 */
static const double MAX_AGE_S = 1048576.0; /* 2^20 */
static const uint64_t MAX_BOOT = (1ull << 32) - 1;
static const uint64_t MAX_UP_MS = (1ull << 53) - 1;
static const uint64_t MIN_BASE_TIME_S = 1ull << 28;
static const uint64_t MAX_BASE_TIME_S = 1ull << 40;
static const uint64_t MAX_SCORE = (1ull << 31) - 1;

struct record {
    unsigned has;
    struct span name;
    struct span unit;
    struct number value;
    struct span text;
    struct span data;
    double offset;
    bool has_time;
};

enum judged { SCORE, ANOMALY, OUTPUT, JUDGED_RECORDS };

/* What a pack says of the board's clock, in this order. */
enum clock_record { BOOT, UP, BY, CLOCK_RECORDS };

struct state {
    struct pack *pack;
    const struct channels *channels;
    size_t hint; /* channel that the next reading probably is of */
    size_t rows;
    double row_time;
    size_t row_names;
    uint32_t row_channels; /* those of the table, a bit each */
    size_t row_others;
    struct span others[MAX_CHANNELS];
    size_t faulty;
    struct span faults[MAX_FAULTS];
    size_t judged;
    double judged_time;
    bool has_model;
    size_t clock;
};

static bool take_base_name(struct reader *reader, struct pack *pack)
{
    static const char prefix[] = "urn:dev:org:";
    struct span text;
    if (!reader_take_string(reader, MAJOR_TEXT, &text) || !span_starts_with(text, prefix)) {
        return false;
    }
    const uint8_t *at = text.bytes + sizeof prefix - 1;
    const uint8_t *end = text.bytes + text.size;
    const uint8_t *number = at;
    pack->enterprise_number = 0;
    while (at < end && *at >= '0' && *at <= '9' && at - number < MAX_ENTERPRISE_DIGITS) {
        pack->enterprise_number = pack->enterprise_number * 10 + (uint64_t)(*at++ - '0');
    }
    if (at == number || (*number == '0' && at - number > 1)) {
        return false;
    }
    if (end - at != 1 + 2 * DEVICE_BYTES + 1 || *at != '-' || end[-1] != '_') {
        return false;
    }
    for (at++; at < end - 1; at++) {
        unsigned digit;
        if (*at >= '0' && *at <= '9') {
            digit = *at - '0';
        } else if (*at >= 'a' && *at <= 'f') {
            digit = *at - 'a' + 10;
        } else {
            return false;
        }
        size_t place = (size_t)(at - (end - 1 - 2 * DEVICE_BYTES));
        uint8_t *byte = &pack->device[place / 2];
        *byte = (uint8_t)(place % 2 ? *byte | digit : digit << 4);
    }
    return true;
}

/* Since 1970, or, at most 0, before the signature. */
static bool take_base_time(struct reader *reader, struct pack *pack)
{
    struct number number;
    if (!reader_take_number(reader, &number) || !number.is_integer) {
        return false;
    }
    if (number.is_unsigned && number.integer > 0) {
        pack->base_time = (int64_t)number.integer;
        return number.integer >= MIN_BASE_TIME_S && number.integer <= MAX_BASE_TIME_S;
    }
    pack->base_time = (int64_t)number.value;
    return number.value >= -MAX_AGE_S;
}

static bool take_bool(struct reader *reader)
{
    return reader_take_byte(reader, CBOR_FALSE) || reader_take_byte(reader, CBOR_TRUE);
}

static bool take_offset(struct reader *reader, double *offset)
{
    struct number number;
    if (!reader_take_number(reader, &number) || fabs(number.value) > MAX_TIME_S) {
        return false;
    }
    *offset = number.value;
    return true;
}

/* One record's fields; deterministic encoding has them in rising order of their labels. Whether
 * name and unit are UTF-8 is seen when they are looked at. */
static bool take_record(struct reader *reader, struct record *record, struct pack *pack)
{
    uint64_t count;
    int last = -1;
    record->has = 0;
    record->offset = 0;
    record->has_time = false;
    if (!reader_take_head(reader, MAJOR_MAP, &count)) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        int label = reader_peek(reader);
        bool is_read = false;
        if (label <= last) {
            return false;
        }
        last = label;
        reader->at++;
        switch (label) {
        case NAME:
            record->has |= HAS_NAME;
            is_read = reader_take_string(reader, MAJOR_TEXT, &record->name);
            break;
        case UNIT:
            record->has |= HAS_UNIT;
            is_read = reader_take_string(reader, MAJOR_TEXT, &record->unit);
            break;
        case VALUE:
            record->has |= HAS_VALUE;
            is_read = reader_take_number(reader, &record->value);
            break;
        case TEXT_VALUE:
            record->has |= HAS_TEXT;
            is_read = reader_take_string(reader, MAJOR_TEXT, &record->text);
            break;
        case BOOL_VALUE:
            record->has |= HAS_BOOL;
            is_read = take_bool(reader);
            break;
        case TIME:
            record->has_time = true;
            is_read = take_offset(reader, &record->offset);
            break;
        case DATA_VALUE:
            record->has |= HAS_DATA;
            is_read = reader_take_bytes(reader, &record->data)
                      && record->data.size == DIGEST_PREFIX_BYTES;
            break;
        case BASE_NAME:
            record->has |= HAS_BASE_NAME;
            is_read = take_base_name(reader, pack);
            break;
        case BASE_TIME:
            record->has |= HAS_BASE_TIME;
            is_read = take_base_time(reader, pack);
            break;
        default:
            break;
        }
        if (!is_read) {
            return false;
        }
    }
    return true;
}

static bool is_alphanumeric(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* RFC 8428 section 4.5.1. */
static bool is_name(struct span name)
{
    if (name.size == 0 || name.size > MAX_NAME_CHARS || !is_alphanumeric(name.bytes[0])) {
        return false;
    }
    for (size_t i = 1; i < name.size; i++) {
        uint8_t c = name.bytes[i];
        if (!is_alphanumeric(c) && (c == 0 || strchr("-:./_", c) == NULL)) {
            return false;
        }
    }
    return true;
}

/* A name, and none of those that stand for something else. */
static bool is_channel_name(struct span name)
{
    return is_name(name) && !span_starts_with(name, "model/") && !span_starts_with(name, "clock/")
           && !span_starts_with(name, fault_prefix);
}

/* What stands behind the prefix is the sensor's label, itself like a name. */
static bool is_fault_name(struct span name)
{
    const size_t prefix = sizeof fault_prefix - 1;
    return is_name(name) && name.size > prefix && is_alphanumeric(name.bytes[prefix]);
}

static bool is_fault_code(struct span code)
{
    for (size_t i = 0; i < code.size; i++) {
        uint8_t c = code.bytes[i];
        if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-') {
            return false;
        }
    }
    return code.size > 0 && code.size <= MAX_FAULT_CODE_CHARS;
}

static bool is_unit(struct span unit)
{
    size_t characters;
    return span_is_text(unit, &characters) && characters > 0 && characters <= MAX_UNIT_CHARS;
}

bool senml_is_channel(struct span name, struct span unit)
{
    return is_channel_name(name) && is_unit(unit);
}

static bool is_same(struct span span, const uint8_t *bytes, size_t size)
{
    return span.size == size && memcmp(span.bytes, bytes, size) == 0;
}

/* The place of a channel in the table; their number where it has none of this name. */
static size_t find_channel(struct state *state, struct span name)
{
    const struct channels *channels = state->channels;
    for (size_t i = 0; i < channels->count; i++) {
        size_t place = state->hint + i;
        if (place >= channels->count) {
            place -= channels->count;
        }
        if (is_same(name, channels->of[place].name, channels->of[place].name_size)) {
            state->hint = place + 1 < channels->count ? place + 1 : 0;
            return place;
        }
    }
    return channels->count;
}

/* Rows rise in time, and are not too many. */
static bool enter_row(struct state *state, double time)
{
    if (state->rows == 0 || time > state->row_time) {
        state->rows++;
        state->row_time = time;
        state->row_names = state->row_others = 0;
        state->row_channels = 0;
    } else if (time < state->row_time) {
        return false;
    }
    return state->rows <= MAX_ROWS && state->row_names++ < MAX_CHANNELS;
}

/* A row has a name that the table lacks at most once. */
static bool enter_other(struct state *state, struct span name)
{
    for (size_t i = 0; i < state->row_others; i++) {
        if (is_same(name, state->others[i].bytes, state->others[i].size)) {
            return false;
        }
    }
    state->others[state->row_others++] = name;
    return true;
}

static bool take_other(struct state *state, const struct record *record)
{
    state->pack->fits = false;
    return is_channel_name(record->name) && is_unit(record->unit)
           && enter_other(state, record->name);
}

/* A reading of a channel of the table, whose name and unit need no further look. */
static bool take_of_channel(struct state *state, const struct record *record, size_t place)
{
    const struct channel *channel = &state->channels->of[place];
    const uint32_t bit = (uint32_t)1 << place;
    if (state->row_channels & bit) {
        return false;
    }
    state->row_channels |= bit;
    if (!is_same(record->unit, channel->unit, channel->unit_size)) {
        state->pack->fits = false;
        return is_unit(record->unit);
    }
    double value = record->value.value;
    state->pack->fits &= channel->minimum <= value && value <= channel->maximum;
    return true;
}

static bool take_reading(struct state *state, const struct record *record, double time)
{
    if (state->judged > 0 || state->faulty > 0
        || record->has != (HAS_NAME | HAS_UNIT | HAS_VALUE) || !enter_row(state, time)) {
        return false;
    }
    state->pack->readings++;
    if (state->channels == NULL) {
        return take_other(state, record);
    }
    size_t place = find_channel(state, record->name);
    return place < state->channels->count ? take_of_channel(state, record, place)
                                          : take_other(state, record);
}

/* A sensor fails at most once in a pack. */
static bool take_fault(struct state *state, const struct record *record)
{
    if (state->judged > 0 || state->faulty == MAX_FAULTS
        || record->has != (HAS_NAME | HAS_TEXT) || !is_fault_name(record->name)
        || !is_fault_code(record->text)) {
        return false;
    }
    for (size_t i = 0; i < state->faulty; i++) {
        if (is_same(record->name, state->faults[i].bytes, state->faults[i].size)) {
            return false;
        }
    }
    state->faults[state->faulty++] = record->name;
    return true;
}

/* A verdict is a score, an anomaly and an output, in this order and at one time. */
static bool take_judged(struct state *state, enum judged what, const struct record *record,
                        double time)
{
    static const unsigned field[] = {HAS_VALUE, HAS_BOOL, HAS_DATA};
    if (record->has != (HAS_NAME | field[what]) || state->judged % JUDGED_RECORDS != what) {
        return false;
    }
    if (what == SCORE) {
        state->judged_time = time;
        if (!record->value.is_unsigned || record->value.integer > MAX_SCORE) {
            return false;
        }
    }
    state->judged++;
    return time == state->judged_time;
}

static bool take_count(const struct record *record, uint64_t most, uint64_t *count)
{
    if (!(record->has & HAS_VALUE) || !record->value.is_unsigned) {
        return false;
    }
    *count = record->value.integer;
    return *count <= most;
}

static bool take_boot(struct pack *pack, const struct record *record)
{
    return record->has == (HAS_NAME | HAS_VALUE)
           && take_count(record, MAX_BOOT, &pack->clock.boot);
}

static bool take_up(struct pack *pack, const struct record *record)
{
    return record->has == (HAS_NAME | HAS_UNIT | HAS_VALUE) && span_equals(record->unit, "ms")
           && take_count(record, MAX_UP_MS, &pack->clock.up_ms);
}

/* A gateway's key id, or one of the ways to the time that need none. */
static bool take_by(struct pack *pack, const struct record *record)
{
    pack->clock.by_gateway = record->has == (HAS_NAME | HAS_DATA);
    if (pack->clock.by_gateway) {
        memcpy(pack->clock.gateway, record->data.bytes, DEVICE_BYTES);
        return true;
    }
    return record->has == (HAS_NAME | HAS_VALUE)
           && take_count(record, CLOCK_BY_NTP, &pack->clock.by);
}

static bool take_clock(struct state *state, const struct record *record)
{
    static const char *const names[] = {"clock/boot", "clock/up", "clock/by"};
    static bool (*const takers[])(struct pack *, const struct record *) = {take_boot, take_up,
                                                                          take_by};
    if (state->clock == CLOCK_RECORDS || record->has_time
        || !span_equals(record->name, names[state->clock])) {
        return false;
    }
    return takers[state->clock++](state->pack, record);
}

static bool take_of_model(struct state *state, const struct record *record, double time)
{
    if (span_equals(record->name, "model/id")) {
        state->has_model = true;
        return record->has == (HAS_NAME | HAS_DATA);
    }
    if (span_equals(record->name, "model/score")) {
        return take_judged(state, SCORE, record, time);
    }
    if (span_equals(record->name, "model/anomaly")) {
        return take_judged(state, ANOMALY, record, time);
    }
    if (span_equals(record->name, "model/output")) {
        return take_judged(state, OUTPUT, record, time);
    }
    return false; /* no channel's name begins so */
}

static bool take(struct state *state, struct record *record, bool is_first)
{
    if ((record->has & HAS_BASE) != (is_first ? HAS_BASE : 0)) {
        return false;
    }
    record->has &= ~(unsigned)HAS_BASE;
    if (!(record->has & HAS_NAME)) {
        return false;
    }
    double time = (double)state->pack->base_time + record->offset;
    if (state->pack->base_time <= 0 && !(time >= -MAX_AGE_S && time <= 0)) {
        return false;
    }
    if (span_starts_with(record->name, "clock/")) {
        return take_clock(state, record);
    }
    if (state->clock > 0 || state->has_model) {
        return false;
    }
    if (span_starts_with(record->name, fault_prefix)) {
        return take_fault(state, record);
    }
    return span_starts_with(record->name, "model/") ? take_of_model(state, record, time)
                                                    : take_reading(state, record, time);
}

/* Who has no time says how long ago it was by the clock; who has it says who gave it. */
static bool is_clock_whole(const struct state *state)
{
    return state->pack->base_time <= 0 ? state->clock == BY
                                       : state->clock == 0 || state->clock == CLOCK_RECORDS;
}

bool senml_read(struct span payload, const struct channels *channels, struct pack *pack)
{
    struct reader reader = reader_of(payload);
    struct state state = {.pack = pack, .channels = channels};
    uint64_t count;

    pack->readings = 0;
    pack->fits = channels != NULL;
    if (payload.size > MAX_PAYLOAD_BYTES || !reader_take_head(&reader, MAJOR_ARRAY, &count)
        || count == 0) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        struct record record;
        if (!take_record(&reader, &record, pack)
            || !take(&state, &record, i == 0)) {
            return false;
        }
    }
    pack->verdicts = state.judged / JUDGED_RECORDS;
    pack->has_clock = state.clock > 0;
    pack->clock.has_by = state.clock == CLOCK_RECORDS;
    return reader_is_done(&reader) && is_clock_whole(&state) && state.judged % JUDGED_RECORDS == 0
           && state.has_model == (pack->verdicts > 0);
}
