/* fog_node.pow._pow: the binding to CPython. Its callers in ../search.py check what users pass;
 * what is checked here keeps memory safe. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

enum { SEARCH_HEADER_BYTES = HEADER_BYTES - 4, DIGEST_BYTES = 32 };
static const long long NONCES = 1LL << 32;

static const char flag_name[] = "fog_node.pow._pow.flag";

static void flag_free(PyObject *capsule)
{
    PyMem_RawFree(PyCapsule_GetPointer(capsule, flag_name));
}

static PyObject *flag_new(PyObject *module, PyObject *ignored)
{
    (void)module;
    (void)ignored;
    atomic_bool *flag = PyMem_RawMalloc(sizeof *flag);
    if (flag == NULL) {
        return PyErr_NoMemory();
    }
    atomic_init(flag, false);
    PyObject *capsule = PyCapsule_New(flag, flag_name, flag_free);
    if (capsule == NULL) {
        PyMem_RawFree(flag);
    }
    return capsule;
}

static PyObject *flag_set(PyObject *module, PyObject *capsule)
{
    (void)module;
    atomic_bool *flag = PyCapsule_GetPointer(capsule, flag_name);
    if (flag == NULL) {
        return NULL;
    }
    atomic_store_explicit(flag, true, memory_order_relaxed);
    Py_RETURN_NONE;
}

static PyObject *flag_is_set(PyObject *module, PyObject *capsule)
{
    (void)module;
    const atomic_bool *flag = PyCapsule_GetPointer(capsule, flag_name);
    if (flag == NULL) {
        return NULL;
    }
    return PyBool_FromLong(atomic_load_explicit(flag, memory_order_relaxed));
}

static PyObject *kernel_names(PyObject *module, PyObject *ignored)
{
    (void)module;
    (void)ignored;
    PyObject *names = PyList_New(0);
    for (const struct kernel *kernel = kernels; names != NULL && kernel->name != NULL; kernel++) {
        if (!kernel->runs_here()) {
            continue;
        }
        PyObject *name = PyUnicode_FromString(kernel->name);
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *double_sha256(PyObject *module, PyObject *args)
{
    const char *bytes;
    Py_ssize_t size;
    uint32_t header[HEADER_WORDS];
    uint32_t digest[SHA256_WORDS];
    unsigned char out[DIGEST_BYTES];

    (void)module;
    if (!PyArg_ParseTuple(args, "y#:double_sha256", &bytes, &size)) {
        return NULL;
    }
    if (size != HEADER_BYTES) {
        return PyErr_Format(PyExc_ValueError, "header: %zd bytes instead of %d", size, HEADER_BYTES);
    }
    sha256_load(header, (const unsigned char *)bytes, HEADER_WORDS);
    sha256_double_header(digest, header);
    sha256_store(out, digest, SHA256_WORDS);
    return PyBytes_FromStringAndSize((const char *)out, DIGEST_BYTES);
}

static PyObject *search(PyObject *module, PyObject *args)
{
    const char *name, *header, *target;
    Py_ssize_t header_size, target_size;
    long long first, count;
    PyObject *cancel_capsule, *stop_capsule;

    (void)module;
    if (!PyArg_ParseTuple(args, "sy#y#LLOO:search", &name, &header, &header_size, &target,
                          &target_size, &first, &count, &cancel_capsule, &stop_capsule)) {
        return NULL;
    }
    if (header_size != SEARCH_HEADER_BYTES || target_size != DIGEST_BYTES) {
        return PyErr_Format(PyExc_ValueError, "header and target: %zd and %zd bytes instead of %d"
                            " and %d", header_size, target_size, SEARCH_HEADER_BYTES, DIGEST_BYTES);
    }
    if (first < 0 || count < 0 || first > NONCES || count > NONCES - first) {
        return PyErr_Format(PyExc_ValueError, "first and count: %lld and %lld leave the range of"
                            " a 32-bit nonce", first, count);
    }
    const struct kernel *kernel = kernel_find(name);
    if (kernel == NULL) {
        return PyErr_Format(PyExc_ValueError, "kernel: no %s here", name);
    }
    /* The argument tuple keeps both flags alive while the GIL is away. */
    const atomic_bool *cancel = PyCapsule_GetPointer(cancel_capsule, flag_name);
    const atomic_bool *stop = PyCapsule_GetPointer(stop_capsule, flag_name);
    if (cancel == NULL || stop == NULL) {
        return NULL;
    }

    struct work work;
    struct search_result result;
    work_init(&work, (const unsigned char *)header, (const unsigned char *)target);
    Py_BEGIN_ALLOW_THREADS
    result = work_search(&work, kernel->scan, kernel->batch, (uint32_t)first, (uint64_t)count,
                         cancel, stop);
    Py_END_ALLOW_THREADS
    if (!result.found) {
        return Py_BuildValue("OK", Py_None, (unsigned long long)result.hashes);
    }
    return Py_BuildValue("kK", (unsigned long)result.nonce, (unsigned long long)result.hashes);
}

static PyMethodDef methods[] = {
    {"double_sha256", double_sha256, METH_VARARGS, "double_sha256(header) -> 32 bytes"},
    {"flag_is_set", flag_is_set, METH_O, "flag_is_set(flag) -> bool"},
    {"flag_new", flag_new, METH_NOARGS, "flag_new() -> a flag, not set"},
    {"flag_set", flag_set, METH_O, "flag_set(flag): set it for good; from any thread"},
    {"kernels", kernel_names, METH_NOARGS, "kernels() -> names this processor runs, fastest first"},
    {"search", search, METH_VARARGS,
     "search(kernel, header, target, first, count, cancel, stop) -> (nonce or None, hashes)"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fog_node.pow._pow",
    .m_doc = "Double SHA-256 of block headers in C. Use fog_node.pow.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__pow(void) { return PyModuleDef_Init(&definition); }
