use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use primacy_config::{
    ClientConfig, ConfigError, GlobalConfig, Map, TimingLimits, from_environment, layers,
};
use primacy_dcs::{ClusterStore, Store};
use primacy_model::Cluster;
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::{Options, Parsed};
use crate::clusters::Clusters;
use crate::http::MemberApi;
use crate::render::{Format, Style, View, member_table};
use crate::store::override_store;
use crate::{Console, Failure, OpenStore, Program};

/// The longest wait for one answer of the store. Long enough for the election of a new leader there.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// What a command finds around it.
pub struct Surroundings {
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// The operator.
    pub console: Console,
    /// Where stores come from; [`crate::ConfiguredStore`] outside of tests.
    pub stores: Box<dyn OpenStore>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        Surroundings {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
                .collect(),
            console: Console::standard(),
            stores: Box::new(crate::ConfiguredStore),
        }
    }
}

/// A command while it runs.
pub(crate) struct Context {
    pub(crate) program: Program,
    pub(crate) options: Options,
    pub(crate) console: Console,
    pub(crate) variables: BTreeMap<String, String>,
    stores: Box<dyn OpenStore>,
    /// The configuration: file, environment, and the store's URL of the command line.
    tree: Map,
    insecure: bool,
}

/// The store and the members, once they are needed.
pub(crate) struct Remote {
    pub(crate) namespace: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) members: MemberApi,
}

/// The cluster that a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scope: String,
    /// Its Citus group, if it has such.
    pub(crate) group: Option<u32>,
}

impl Context {
    /// Reads the configuration.
    pub(crate) fn new(
        program: Program,
        parsed: Parsed,
        surroundings: Surroundings,
    ) -> Result<Self, Failure> {
        let Parsed {
            global, options, ..
        } = parsed;
        let Surroundings {
            variables,
            mut console,
            stores,
        } = surroundings;
        console.show_warnings(warnings_wanted(&variables));
        let given = |option: &str, variable: &str| {
            let own = options.text(option).map(str::to_owned);
            let global = || global.get_one::<String>(option).cloned();
            let variable = || {
                variables
                    .get(variable)
                    .filter(|value| !value.is_empty())
                    .cloned()
            };
            own.or_else(global).or_else(variable)
        };
        let insecure = options.is_set("insecure") || global.get_flag("insecure");
        let mut tree = load(given("config-file", "PATRONICTL_CONFIG_FILE"), &variables)?;
        if let Some(url) = given("dcs-url", "DCS_URL") {
            for warning in override_store(&mut tree, &url)? {
                console.warn(&warning);
            }
        }
        Ok(Context {
            program,
            options,
            console,
            variables,
            stores,
            tree,
            insecure,
        })
    }

    /// Opens the store and prepares the calls to members. Nothing is asked yet.
    pub(crate) fn connect(&self) -> Result<Remote, Failure> {
        let config = ClientConfig::from_local(&Value::Object(self.tree.clone()))?;
        Ok(Remote {
            namespace: config.namespace.clone(),
            store: self.stores.open(&config)?,
            members: MemberApi::new(&config, self.insecure),
        })
    }

    /// The cluster name of the configuration.
    pub(crate) fn configured_scope(&self) -> Option<&str> {
        self.tree
            .get("scope")
            .and_then(Value::as_str)
            .filter(|scope| !scope.is_empty())
    }

    /// The Citus group of the configuration, if it is a Citus configuration.
    pub(crate) fn configured_group(&self) -> Option<u32> {
        let citus = self.tree.get("citus")?;
        citus.get("database")?.as_str()?;
        u32::try_from(citus.get("group")?.as_u64()?).ok()
    }

    /// The cluster named on the command line, else the one of the configuration.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let scope = self.options.cluster().or_else(|| self.configured_scope());
        let scope = scope.ok_or_else(|| {
            Failure::refused("no cluster name was given: name it on the command line, or set scope in the configuration")
        })?;
        Ok(Target {
            scope: scope.to_owned(),
            group: self.options.group()?,
        })
    }

    /// As [`Context::target`], with the configured group where none is given.
    pub(crate) fn target_of_own_group(&self) -> Result<Target, Failure> {
        let target = self.target()?;
        Ok(Target {
            group: target.group.or_else(|| self.configured_group()),
            ..target
        })
    }

    /// Draws the member table.
    pub(crate) fn show_members(
        &mut self,
        target: &Target,
        cluster: &Cluster,
    ) -> Result<(), Failure> {
        self.show(target, target.view(cluster), Format::Pretty)
    }

    /// Draws the members of all clusters that a command is about.
    pub(crate) fn show_all(&mut self, target: &Target, clusters: &Clusters) -> Result<(), Failure> {
        self.show(target, clusters.view(target), Format::Pretty)
    }

    pub(crate) fn show(
        &mut self,
        target: &Target,
        view: View<'_>,
        format: Format,
    ) -> Result<(), Failure> {
        let table = member_table(&target.scope, view, false, Style::List(format));
        self.console.write(&table)
    }

    /// Whether to go on; without asking when the operator forces.
    pub(crate) async fn confirmed(&mut self, question: &str) -> Result<bool, Failure> {
        Ok(self.options.is_set("force") || self.console.confirm(question).await?)
    }
}

impl Target {
    /// The same cluster's group of that number.
    pub(crate) fn in_group(&self, group: u32) -> Target {
        Target {
            group: Some(group),
            ..self.clone()
        }
    }

    pub(crate) fn view<'a>(&self, cluster: &'a Cluster) -> View<'a> {
        self.group
            .map_or(View::Cluster(cluster), |group| View::Group(group, cluster))
    }
}

impl Remote {
    pub(crate) fn cluster(&self, target: &Target) -> ClusterStore {
        let scope = match target.group {
            Some(group) => format!("{}/{group}", target.scope),
            None => target.scope.clone(),
        };
        ClusterStore::new(self.store.clone(), &self.namespace, &scope)
    }

    pub(crate) async fn read(&self, target: &Target) -> Result<Cluster, Failure> {
        Ok(self.cluster(target).read(store_deadline()).await?)
    }
}

/// When to give up on the store.
pub(crate) fn store_deadline() -> Instant {
    Instant::now() + STORE_PATIENCE
}

/// The cluster-wide settings that commands look at.
pub(crate) fn global_config(cluster: &Cluster) -> GlobalConfig {
    let empty = Map::new();
    let dynamic = cluster
        .config
        .as_ref()
        .map_or(&empty, |config| &config.value);
    GlobalConfig::from_dynamic(dynamic, TimingLimits::EMBEDDED).0
}

/// `patronictl.md` §1.1: a file that is named must be there, the one at the usual place need not.
fn load(named: Option<String>, variables: &BTreeMap<String, String>) -> Result<Map, Failure> {
    let path = named
        .clone()
        .map(PathBuf::from)
        .or_else(|| usual_path(variables));
    let readable = path.filter(|path| std::fs::File::open(path).is_ok());
    match (&readable, named) {
        (None, Some(named)) if Some(PathBuf::from(&named)) != usual_path(variables) => {
            return Err(Failure::refused(format!(
                "Provided config file {named} not existing or no read rights. Check the -c/--config-file parameter"
            )));
        }
        _ => {}
    }
    let environment = from_environment(variables.clone());
    match layers::load(readable.as_deref(), &environment) {
        Ok(Value::Object(tree)) => Ok(tree),
        Ok(_) | Err(ConfigError::Empty) => Ok(Map::new()),
        Err(error) => Err(error.into()),
    }
}

fn usual_path(variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let set = |name: &str| {
        variables
            .get(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let directory = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(directory.join("patroni").join("patronictl.yaml"))
}

/// Warnings are shown unless the last of these names a higher level.
fn warnings_wanted(variables: &BTreeMap<String, String>) -> bool {
    let level = ["PATRONI_LOG_LEVEL", "PATRONI_LOGLEVEL", "LOGLEVEL"]
        .iter()
        .find_map(|name| variables.get(*name));
    !level.is_some_and(|level| {
        matches!(
            level.to_uppercase().as_str(),
            "ERROR" | "CRITICAL" | "FATAL"
        )
    })
}
