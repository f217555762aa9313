/* fog_node.protocol._native: the binding to CPython. Its callers in ../packs.py and ../keys.py give
 * a reason where it says no; what is checked here keeps memory safe. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "envelope.h"
#include "senml.h"

enum { MAX_HEAD_BYTES = 5 };

static const char channels_name[] = "fog_node.protocol._native.channels";

static struct span span_of(const Py_buffer *buffer)
{
    return (struct span){buffer->buf, (size_t)buffer->len};
}

static PyObject *bytes_of(struct span span)
{
    return PyBytes_FromStringAndSize((const char *)span.bytes, (Py_ssize_t)span.size);
}

/* The table under this key id: NULL without an error where there is none. */
static const struct channels *find_table(PyObject *tables, struct span kid, PyObject **capsule)
{
    *capsule = NULL;
    if (tables == Py_None) {
        return NULL;
    }
    PyObject *key = bytes_of(kid);
    if (key == NULL) {
        return NULL;
    }
    *capsule = PyDict_GetItemWithError(tables, key);
    Py_DECREF(key);
    return *capsule == NULL ? NULL : PyCapsule_GetPointer(*capsule, channels_name);
}

/* (boot, up_ms, by), by being key id, number or None; None for a pack without. */
static PyObject *clock_found(const struct pack *pack)
{
    const struct clock *clock = &pack->clock;
    PyObject *by;
    if (!pack->has_clock) {
        return Py_NewRef(Py_None);
    }
    if (!clock->has_by) {
        by = Py_NewRef(Py_None);
    } else if (clock->by_gateway) {
        by = PyBytes_FromStringAndSize((const char *)clock->gateway, DEVICE_BYTES);
    } else {
        by = PyLong_FromUnsignedLongLong(clock->by);
    }
    return Py_BuildValue("KKN", (unsigned long long)clock->boot, (unsigned long long)clock->up_ms,
                         by);
}

static PyObject *pack_found(const struct envelope *envelope, const struct pack *pack,
                            PyObject *table)
{
    return Py_BuildValue(
        "NNKKNNKLnnNO", bytes_of(envelope->protected), bytes_of(envelope->kid),
        (unsigned long long)envelope->sequence, (unsigned long long)envelope->dropped,
        bytes_of(envelope->payload), bytes_of(envelope->signature),
        (unsigned long long)pack->enterprise_number, (long long)pack->base_time,
        (Py_ssize_t)pack->readings, (Py_ssize_t)pack->verdicts, clock_found(pack),
        pack->fits ? table : Py_None);
}

static PyObject *read_pack(PyObject *module, PyObject *args)
{
    Py_buffer buffer;
    PyObject *tables, *table, *result = NULL;
    struct envelope envelope;
    struct pack pack;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*O:read_pack", &buffer, &tables)) {
        return NULL;
    }
    if (tables != Py_None && !PyDict_Check(tables)) {
        PyErr_SetString(PyExc_TypeError, "tables: neither a dict nor None");
    } else if (!envelope_read(span_of(&buffer), &envelope)) {
        result = Py_NewRef(Py_None);
    } else {
        const struct channels *channels = find_table(tables, envelope.kid, &table);
        if (PyErr_Occurred()) {
            result = NULL;
        } else if (senml_read(envelope.payload, channels, &pack)
                   && memcmp(pack.device, envelope.kid.bytes, DEVICE_BYTES) == 0) {
            result = pack_found(&envelope, &pack, table);
        } else {
            result = Py_NewRef(Py_None);
        }
    }
    PyBuffer_Release(&buffer);
    return result;
}

static void channels_free(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, channels_name));
}

static bool fill_channel(struct channel *channel, PyObject *item)
{
    const char *name, *unit;
    Py_ssize_t name_size, unit_size;

    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "channels: one is not (name, unit, minimum, maximum)");
        return false;
    }
    if (!PyArg_ParseTuple(item, "s#s#dd:channels", &name, &name_size, &unit, &unit_size,
                          &channel->minimum, &channel->maximum)) {
        return false;
    }
    if (name_size > MAX_NAME_CHARS || unit_size > MAX_UNIT_BYTES) {
        PyErr_SetString(PyExc_ValueError, "channels: a name or a unit is too long");
        return false;
    }
    if (!senml_is_channel((struct span){(const uint8_t *)name, (size_t)name_size},
                          (struct span){(const uint8_t *)unit, (size_t)unit_size})) {
        PyErr_SetString(PyExc_ValueError, "channels: a name or a unit is none that a pack can have");
        return false;
    }
    channel->name_size = (uint8_t)name_size;
    channel->unit_size = (uint8_t)unit_size;
    memcpy(channel->name, name, (size_t)name_size);
    memcpy(channel->unit, unit, (size_t)unit_size);
    return true;
}

/* Whether the last one has a name of its own, by which a row's readings are told apart. */
static bool is_new_name(const struct channels *channels, size_t last)
{
    const struct channel *channel = &channels->of[last];
    for (size_t i = 0; i < last; i++) {
        if (channels->of[i].name_size == channel->name_size
            && memcmp(channels->of[i].name, channel->name, channel->name_size) == 0) {
            PyErr_SetString(PyExc_ValueError, "channels: a name stands there twice");
            return false;
        }
    }
    return true;
}

static PyObject *channels_new(PyObject *module, PyObject *listed)
{
    (void)module;
    PyObject *items = PySequence_Fast(listed, "channels: not a sequence");
    if (items == NULL) {
        return NULL;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(items);
    struct channels *channels = NULL;
    PyObject *capsule = NULL;
    if (count > MAX_CHANNELS) {
        PyErr_Format(PyExc_ValueError, "channels: %zd, at most %d", count, MAX_CHANNELS);
        goto done;
    }
    channels = PyMem_Calloc(1, sizeof *channels);
    if (channels == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    channels->count = (size_t)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!fill_channel(&channels->of[i], PySequence_Fast_GET_ITEM(items, i))
            || !is_new_name(channels, (size_t)i)) {
            goto done;
        }
    }
    capsule = PyCapsule_New(channels, channels_name, channels_free);
done:
    if (capsule == NULL) {
        PyMem_Free(channels);
    }
    Py_DECREF(items);
    return capsule;
}

static PyObject *is_plausible(PyObject *module, PyObject *args)
{
    Py_buffer payload;
    PyObject *capsule;
    struct pack pack;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*O:is_plausible", &payload, &capsule)) {
        return NULL;
    }
    const struct channels *channels = PyCapsule_GetPointer(capsule, channels_name);
    bool plausible =
        channels != NULL && senml_read(span_of(&payload), channels, &pack) && pack.fits;
    PyBuffer_Release(&payload);
    return channels == NULL ? NULL : PyBool_FromLong(plausible);
}

static PyObject *to_der(PyObject *module, PyObject *signature)
{
    Py_buffer buffer;
    uint8_t der[MAX_DER_BYTES];
    size_t size;

    (void)module;
    if (PyObject_GetBuffer(signature, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    size = buffer.len == SIGNATURE_BYTES ? signature_to_der(buffer.buf, der) : 0;
    PyBuffer_Release(&buffer);
    return size ? PyBytes_FromStringAndSize((char *)der, (Py_ssize_t)size) : Py_NewRef(Py_None);
}

static PyObject *is_deterministic(PyObject *module, PyObject *data)
{
    Py_buffer buffer;
    (void)module;
    if (PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    bool deterministic = cbor_is_deterministic(span_of(&buffer));
    PyBuffer_Release(&buffer);
    return PyBool_FromLong(deterministic);
}

/* The head of a byte string in its shortest form; returns where it ends. */
static char *put_head(char *at, Py_ssize_t size)
{
    const unsigned char major = MAJOR_BYTES << 5;
    if (size < SHORT_ARGUMENT) {
        *at++ = (char)(major | size);
        return at;
    }
    int bytes = size < 1 << 8 ? 1 : size < 1 << 16 ? 2 : 4;
    *at++ = (char)(major | (SHORT_ARGUMENT + bytes / 2));
    while (bytes-- > 0) {
        *at++ = (char)(size >> 8 * bytes & 0xFF);
    }
    return at;
}

static char *put_bytes(char *at, const Py_buffer *bytes)
{
    at = put_head(at, bytes->len);
    memcpy(at, bytes->buf, (size_t)bytes->len);
    return at + bytes->len;
}

static PyObject *sig_structure(PyObject *module, PyObject *args)
{
    static const char begin[] = "\x84\x6aSignature1";
    Py_buffer protected, chain_id, payload;
    PyObject *whole = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*:sig_structure", &protected, &chain_id, &payload)) {
        return NULL;
    }
    /* Bounds of the formats: no head is then longer than MAX_HEAD_BYTES, nor the sum too large. */
    if (protected.len > INT32_MAX / 4 || chain_id.len > INT32_MAX / 4
        || payload.len > INT32_MAX / 4) {
        PyErr_SetString(PyExc_ValueError, "sig_structure: a part is too long");
    } else {
        Py_ssize_t most = (Py_ssize_t)sizeof begin - 1 + 3 * MAX_HEAD_BYTES + protected.len
                          + chain_id.len + payload.len;
        whole = PyBytes_FromStringAndSize(NULL, most);
    }
    if (whole != NULL) {
        char *start = PyBytes_AS_STRING(whole);
        char *at = start;
        memcpy(at, begin, sizeof begin - 1);
        at = put_bytes(at + sizeof begin - 1, &protected);
        at = put_bytes(at, &chain_id);
        at = put_bytes(at, &payload);
        _PyBytes_Resize(&whole, at - start);
    }
    PyBuffer_Release(&protected);
    PyBuffer_Release(&chain_id);
    PyBuffer_Release(&payload);
    return whole;
}

static PyMethodDef methods[] = {
    {"channels", channels_new, METH_O,
     "channels([(name, unit, minimum, maximum), ...]) -> a table for is_plausible"},
    {"is_deterministic", is_deterministic, METH_O,
     "is_deterministic(data) -> whether this is one CBOR item as it must be encoded; False also for"
     " some items that no structure has"},
    {"is_plausible", is_plausible, METH_VARARGS,
     "is_plausible(payload, channels) -> whether all readings fit; False for what is no pack"},
    {"read_pack", read_pack, METH_VARARGS,
     "read_pack(message, tables) -> (protected, kid, sequence, dropped, payload, signature,"
     " enterprise number, base time, readings, verdicts, clock, table); None for what is no pack as"
     " it must be. The clock is (boot, up_ms, by) or None. The table is the one under the key id in `tables`, a dict or None, where it is"
     " there and all readings fit it; else None."},
    {"sig_structure", sig_structure, METH_VARARGS,
     "sig_structure(protected, chain_id, payload) -> the bytes that are signed"},
    {"to_der", to_der, METH_O,
     "to_der(r||s) -> the signature in DER; None where r or s is out of its range"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "The strict reading of packs, in C.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
