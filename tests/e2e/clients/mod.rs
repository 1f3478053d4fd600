//! What people run beside a cluster, unmodified, by the samples in `packaging/samples`.

pub(crate) mod check_patroni;
mod haproxy;
mod libpq;
mod pgbackrest;
mod pgbouncer;
mod prometheus;
mod virtual_address;
