/* A library that PostgreSQL 12 to 18 can preload, and that does nothing: what PG_MODULE_MAGIC makes, without the
 * server's headers. */
#ifndef VERSION
#error "-DVERSION=15 and so on"
#endif

static const struct {
    int length, version, max_arguments, max_index_keys, name_length, float8_by_value;
#if VERSION >= 15
    char abi[32];
#elif VERSION < 13
    int float4_by_value;
#endif
#if VERSION >= 18
    const char *name, *module_version;
#endif
} magic = {
    sizeof(magic), VERSION * 100, 100, 32, 64, 1,
#if VERSION >= 15
    "PostgreSQL",
#elif VERSION < 13
    1,
#endif
};

const void *Pg_magic_func(void) { return &magic; }
