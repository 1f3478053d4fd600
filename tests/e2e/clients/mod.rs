//! What people run beside a cluster, unmodified, by the samples in `packaging/samples`.

mod haproxy;
mod libpq;
mod pgbouncer;
