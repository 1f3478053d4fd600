use super::ToolOptions;
use crate::scalar::python_str;
use crate::section::Section;
use crate::{ConfigError, GucMap, Map};

/// The `bootstrap` section (`configuration.md` §2.3).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Bootstrap {
    /// The dynamic configuration of the new cluster.
    pub dcs: Map,
    /// The custom method to use; `None`: initdb.
    pub method: Option<BootstrapMethod>,
    /// Options of initdb. A problem among them aborts the bootstrap.
    pub initdb: ToolOptions,
    /// Command run on the new primary.
    pub post_bootstrap: Option<String>,
    /// Lines appended to `pg_hba.conf` when nothing else manages it.
    pub pg_hba: Vec<String>,
}

/// A custom bootstrap method, `bootstrap.<name>`.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapMethod {
    /// Name of its section.
    pub name: String,
    /// Command; exit code 0 is success.
    pub command: String,
    /// Do not pass `--scope` and `--datadir`.
    pub no_params: bool,
    /// Keep the recovery settings that the command produced.
    pub keep_existing_recovery_conf: bool,
    /// Recovery settings written before the start.
    pub recovery_conf: Option<GucMap>,
    /// Further arguments, `--<name>=<value>`, in order.
    pub arguments: Vec<(String, String)>,
}

/// Settings of a method that are not passed on.
const RESERVED: [&str; 6] = [
    "command",
    "no_params",
    "keep_existing_recovery_conf",
    "recovery_conf",
    "scope",
    "datadir",
];

impl Bootstrap {
    pub(crate) fn parse(root: &Map) -> Result<Option<Bootstrap>, ConfigError> {
        let Some(section) = Section::of("bootstrap", root, "bootstrap")? else {
            return Ok(None);
        };
        if section.map().is_empty() {
            return Ok(None);
        }
        let method = match section.text("method")? {
            Some(name) if name != "initdb" => BootstrapMethod::parse(&name, section)?,
            _ => None,
        };
        let post_bootstrap = match section.text("post_bootstrap")? {
            Some(command) => Some(command),
            None => section.text("post_init")?,
        };
        Ok(Some(Bootstrap {
            dcs: section.object("dcs")?.into_owned(),
            method,
            initdb: ToolOptions::parse("initdb", section.get("initdb")),
            post_bootstrap,
            pg_hba: section.lines("pg_hba")?.unwrap_or_default(),
        }))
    }
}

impl BootstrapMethod {
    /// `None`, and so initdb, unless the section is there and has a command.
    fn parse(name: &str, bootstrap: Section<'_>) -> Result<Option<Self>, ConfigError> {
        let path = bootstrap.key(name);
        let Some(section) = Section::of(&path, bootstrap.map(), name)? else {
            return Ok(None);
        };
        let Some(command) = section.text("command")? else {
            return Ok(None);
        };
        let recovery_conf = match section.get("recovery_conf") {
            Some(_) => Some(section.gucs("recovery_conf")?),
            None => None,
        };
        Ok(Some(BootstrapMethod {
            name: name.to_owned(),
            command,
            no_params: section.truthy("no_params"),
            keep_existing_recovery_conf: section.truthy("keep_existing_recovery_conf"),
            recovery_conf,
            arguments: section
                .map()
                .iter()
                .filter(|(name, _)| !RESERVED.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), python_str(value)))
                .collect(),
        }))
    }
}
