//! What people run beside a cluster, unmodified, by the samples in `packaging/samples`.

mod barman;
pub(crate) mod check_patroni;
mod haproxy;
mod libpq;
mod pgbackrest;
mod pgbouncer;
mod prometheus;
mod virtual_address;

use anyhow::Result;
use primacy_config::yaml;
use primacy_testkit::{ClusterBuilder, Sample};
use serde_json::Value;

/// Puts the sections of a sample into every member's configuration.
fn with_parts(mut builder: ClusterBuilder, sample: Sample) -> Result<ClusterBuilder> {
    let parts = yaml::parse("sample", &sample.text()?)?;
    for (key, value) in entries(&parts["bootstrap"]) {
        if key == "dcs" {
            for (key, value) in entries(value) {
                builder = builder.merge_dynamic(key, value);
            }
        } else {
            builder = builder.bootstrap(key, value.clone());
        }
    }
    for (key, value) in entries(&parts["postgresql"]) {
        builder = builder.postgresql(key, value.clone());
    }
    Ok(builder)
}

fn entries(section: &Value) -> impl Iterator<Item = (&String, &Value)> {
    section.as_object().into_iter().flatten()
}
