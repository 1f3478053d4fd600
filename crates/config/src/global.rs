use std::time::Duration;

use indexmap::IndexMap;
use primacy_model::SlotKind;
use serde_json::Value;

use crate::scalar::{parse_bool, parse_int, parse_int_in, python_repr, python_str, truthy};
use crate::{Map, TimingLimits, Warning, parameters, timing};

/// Default of `primary_hang_timeout`, in seconds. Linux gives a disk 30 seconds for one command before it resets it, and a path
/// of a storage network as long to fail over: twice that is no stall that passes by itself. A busy checkpoint
/// keeps nobody from answering, and as long as WAL is flushed at all a slow fsync is none.
const HANG_TIMEOUT_S: i64 = 60;

/// The cluster-wide settings, the same for every member (`configuration.md` §3).
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalConfig {
    /// Lifetime of the leader lock.
    pub ttl: Duration,
    /// Time between two passes.
    pub loop_wait: Duration,
    /// Budget for the retries of one operation on the store or on PostgreSQL.
    pub retry_timeout: Duration,
    /// Bytes; a replica further behind the last known leader position is no candidate.
    pub maximum_lag_on_failover: u64,
    /// Bytes; a synchronous standby further behind is exchanged. `None`: never.
    pub maximum_lag_on_syncnode: Option<u64>,
    /// How many of the newest timelines `/history` keeps. 0: all.
    pub max_timelines_history: usize,
    /// How long a failed primary may take to come back before another takes over.
    pub primary_start_timeout: Duration,
    /// How long a primary may take to stop in synchronous mode before it is killed. `None`: for ever.
    pub primary_stop_timeout: Option<Duration>,
    /// How long a primary may go without an answer to one of the probes before it hands over; ours. Zero: for ever.
    pub primary_hang_timeout: Duration,
    /// How long the race is put off while WAL still arrives. Zero: not at all.
    pub primary_race_backoff: Duration,
    /// Off in a standby cluster, whatever is configured.
    pub synchronous_mode: SynchronousMode,
    /// Never fall back to asynchronous.
    pub synchronous_mode_strict: bool,
    /// How many synchronous standbys are wanted.
    pub synchronous_node_count: u32,
    /// Keep the primary while the store is away and every member answers.
    pub failsafe_mode: bool,
    /// Members behind the known timeline are no candidates.
    pub check_timeline: bool,
    /// Maintenance: observe, do not act.
    pub pause: bool,
    /// How long the slot of a member that is gone is kept. `None`: drop at once.
    pub member_slots_ttl: Option<Duration>,
    /// Set when this whole cluster follows another one.
    pub standby_cluster: Option<StandbyCluster>,
    /// Use replication slots.
    pub use_slots: bool,
    /// Slots to keep through failovers, by name.
    pub permanent_slots: IndexMap<String, PermanentSlot>,
    /// Slots to leave alone.
    pub ignore_slots: Vec<SlotMatcher>,
}

/// How commits wait for standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SynchronousMode {
    /// They do not.
    #[default]
    Off,
    /// Named standbys.
    On,
    /// Any so many of the named standbys.
    Quorum,
}

/// The remote primary that a standby cluster follows (`configuration.md` §3.5). At least one of host, port
/// and restore command is set.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StandbyCluster {
    /// Remote address; a comma-separated list is allowed.
    pub host: Option<String>,
    /// Remote port, or one for each host, separated by commas; the default is 5432.
    pub port: Option<String>,
    /// Slot to use on the remote side, as configured. `None`: no slot.
    pub primary_slot_name: Option<String>,
    /// Clone methods of all members; empty: `basebackup`.
    pub create_replica_methods: Vec<String>,
    /// Overrides `recovery_conf` on all members.
    pub restore_command: Option<String>,
    /// Overrides `recovery_conf` on all members.
    pub archive_cleanup_command: Option<String>,
    /// On the member that follows the remote.
    pub recovery_min_apply_delay: Option<String>,
}

/// A replication slot that the cluster keeps on every potential leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermanentSlot {
    /// Physical, or logical with database and plugin.
    pub kind: SlotKind,
    /// Where it is wanted; `None`: in both.
    pub cluster_type: Option<ClusterType>,
}

/// Value of `cluster_type` of a permanent slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterType {
    /// A cluster of its own.
    Primary,
    /// A standby cluster.
    Standby,
}

/// Matches slots that nobody may touch (`configuration.md` §3.4). An absent field matches anything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SlotMatcher {
    /// Slot name.
    pub name: Option<String>,
    /// `physical` or `logical`.
    pub kind: Option<String>,
    /// Database of a logical slot.
    pub database: Option<String>,
    /// Output plugin of a logical slot.
    pub plugin: Option<String>,
}

impl GlobalConfig {
    /// The longest `fencing.safety_margin`: with a longer one the fence would end a leader whose next renewal, `loop_wait`
    /// after the last one, may still succeed within `retry_timeout`.
    pub fn longest_fencing_margin(&self) -> Duration {
        self.ttl.saturating_sub(self.loop_wait + self.retry_timeout)
    }

    /// Reads a later version of the dynamic configuration. With a timing that is no number it is refused as the configuration of
    /// this member ([`crate::Effective::build`] tells why), so all three timings stay as they are (`configuration.md` §1.7); the
    /// other keys are what the store says whether or not it is refused (§1.6).
    pub fn followed_by(&self, dynamic: &Map, limits: TimingLimits) -> (GlobalConfig, Vec<Warning>) {
        if timing::check(dynamic).is_ok() {
            return GlobalConfig::from_dynamic(dynamic, limits);
        }
        let mut dynamic = dynamic.clone();
        for (key, value) in [
            ("ttl", self.ttl),
            ("loop_wait", self.loop_wait),
            ("retry_timeout", self.retry_timeout),
        ] {
            dynamic.insert(key.into(), value.as_secs().into());
        }
        GlobalConfig::from_dynamic(&dynamic, limits)
    }

    /// Reads the dynamic configuration; what cannot be understood takes its default, and is told.
    pub fn from_dynamic(dynamic: &Map, limits: TimingLimits) -> (GlobalConfig, Vec<Warning>) {
        let mut warnings = Vec::new();
        let mut dynamic = dynamic.clone();
        timing::clamp(&mut dynamic, limits, &mut warnings);
        let standby_cluster = dynamic
            .get("standby_cluster")
            .and_then(|section| StandbyCluster::parse(section, &mut warnings));
        let permanent_slots = permanent_slots(&dynamic, &mut warnings);
        let ignore_slots = ignore_slots(&dynamic, &mut warnings);
        let mut read = Reader {
            dynamic: &dynamic,
            warnings,
        };

        let [ttl, loop_wait, retry_timeout] = timing::DEFAULTS
            .map(|(key, default)| Duration::from_secs(read.int(key, None, default).unsigned_abs()));
        let strict = read.bool("synchronous_mode_strict");
        let node_count = read
            .int("synchronous_node_count", None, 1)
            .max(strict.into())
            .max(0);
        let stop_timeout = read.int("primary_stop_timeout", Some("master_stop_timeout"), 0);
        let global = GlobalConfig {
            ttl,
            loop_wait,
            retry_timeout,
            maximum_lag_on_failover: natural(read.int("maximum_lag_on_failover", None, 1_048_576)),
            maximum_lag_on_syncnode: positive(read.int("maximum_lag_on_syncnode", None, -1)),
            max_timelines_history: usize::try_from(read.int("max_timelines_history", None, 0))
                .unwrap_or(0),
            primary_start_timeout: Duration::from_secs(natural(read.int(
                "primary_start_timeout",
                Some("master_start_timeout"),
                300,
            ))),
            primary_stop_timeout: positive(stop_timeout).map(Duration::from_secs),
            primary_hang_timeout: Duration::from_secs(natural(read.int(
                "primary_hang_timeout",
                None,
                HANG_TIMEOUT_S,
            ))),
            primary_race_backoff: Duration::from_secs(natural(read.int(
                "primary_race_backoff",
                None,
                0,
            ))),
            synchronous_mode: match read.synchronous_mode() {
                _ if standby_cluster.is_some() => SynchronousMode::Off,
                mode => mode,
            },
            synchronous_mode_strict: strict,
            synchronous_node_count: u32::try_from(node_count).unwrap_or(u32::MAX),
            failsafe_mode: read.bool("failsafe_mode"),
            check_timeline: read.bool("check_timeline"),
            pause: read.bool("pause"),
            member_slots_ttl: read.member_slots_ttl(),
            standby_cluster,
            use_slots: match dynamic.get("postgresql").and_then(|p| p.get("use_slots")) {
                None => true,
                Some(value) => parse_bool(value).unwrap_or(false),
            },
            permanent_slots,
            ignore_slots,
        };
        (global, read.warnings)
    }
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

/// Reads single keys, and tells which could not be understood.
struct Reader<'a> {
    dynamic: &'a Map,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    /// The old name counts only when the new one is absent.
    fn int(&mut self, key: &str, old_key: Option<&str>, default: i64) -> i64 {
        let key = match old_key {
            Some(old_key) if !self.dynamic.contains_key(key) => old_key,
            _ => key,
        };
        let Some(value) = self.dynamic.get(key) else {
            return default;
        };
        parse_int(value).unwrap_or_else(|| {
            self.warn(
                key,
                value,
                "an integer without a unit",
                &default.to_string(),
            );
            default
        })
    }

    fn bool(&mut self, key: &str) -> bool {
        let Some(value) = self.dynamic.get(key) else {
            return false;
        };
        parse_bool(value).unwrap_or_else(|| {
            if truthy(value) {
                self.warn(key, value, "a boolean", "off");
            }
            false
        })
    }

    fn synchronous_mode(&mut self) -> SynchronousMode {
        match self.dynamic.get("synchronous_mode") {
            Some(value) if python_str(value).eq_ignore_ascii_case("quorum") => {
                SynchronousMode::Quorum
            }
            _ if self.bool("synchronous_mode") => SynchronousMode::On,
            _ => SynchronousMode::Off,
        }
    }

    fn member_slots_ttl(&mut self) -> Option<Duration> {
        let default = 1800;
        let seconds = match self.dynamic.get("member_slots_ttl") {
            None => default,
            Some(value) => parse_int_in(value, Some("s")).unwrap_or_else(|| {
                self.warn(
                    "member_slots_ttl",
                    value,
                    "a duration such as 30min",
                    "30min",
                );
                default
            }),
        };
        positive(seconds).map(Duration::from_secs)
    }

    fn warn(&mut self, key: &str, value: &Value, expected: &str, default: &str) {
        let value = python_repr(value);
        self.warnings.push(Warning(format!(
            "{key} in the dynamic configuration is {value}: expected {expected}; {default} is used"
        )));
    }
}

/// §3.3: the first of the three spellings that is not empty.
fn permanent_slots(dynamic: &Map, warnings: &mut Vec<Warning>) -> IndexMap<String, PermanentSlot> {
    let mut slots = IndexMap::new();
    let given = ["permanent_replication_slots", "permanent_slots", "slots"]
        .into_iter()
        .find_map(|key| dynamic.get(key).filter(|value| truthy(value)));
    let Some(Value::Object(given)) = given else {
        return slots;
    };
    for (name, value) in given {
        if !is_slot_name(name) {
            warnings.push(Warning(format!(
                "Invalid permanent replication slot name '{name}'"
            )));
            warnings.push(Warning(
                "Slot name may only contain lower case letters, numbers, and the underscore chars"
                    .into(),
            ));
            continue;
        }
        match PermanentSlot::parse(value) {
            Some(slot) => {
                slots.insert(name.clone(), slot);
            }
            None => warnings.push(Warning(format!(
                "Bad value for slot '{name}' in permanent_slots: {}",
                python_str(value)
            ))),
        }
    }
    slots
}

/// §3.4. What is no matcher matches every slot: a slot that somebody meant to keep is not dropped because it is unclear
/// which.
fn ignore_slots(dynamic: &Map, warnings: &mut Vec<Warning>) -> Vec<SlotMatcher> {
    let mut unclear = |value: &Value| {
        warnings.push(Warning(format!(
            "ignore_slots in the dynamic configuration is or has {}: expected a list of mappings with name, type, database \
             and plugin; no slot is dropped meanwhile",
            python_repr(value)
        )));
        SlotMatcher::default()
    };
    match dynamic.get("ignore_slots") {
        Some(Value::Array(matchers)) => matchers
            .iter()
            .map(|value| SlotMatcher::parse(value).unwrap_or_else(|| unclear(value)))
            .collect(),
        Some(value) if truthy(value) => vec![unclear(value)],
        _ => Vec::new(),
    }
}

fn is_slot_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

impl PermanentSlot {
    fn parse(value: &Value) -> Option<PermanentSlot> {
        let physical = PermanentSlot {
            kind: SlotKind::Physical,
            cluster_type: None,
        };
        if !truthy(value) {
            return Some(physical);
        }
        let spec = value.as_object()?;
        let text = |key: &str| spec.get(key).filter(|value| truthy(value)).map(python_str);
        let logical = match (text("database"), text("plugin")) {
            (Some(database), Some(plugin)) => Some(SlotKind::Logical { database, plugin }),
            _ => None,
        };
        let kind = match spec.get("type") {
            None => logical.unwrap_or(SlotKind::Physical),
            Some(kind) if kind == "physical" => SlotKind::Physical,
            Some(kind) if kind == "logical" => logical?,
            Some(_) => return None,
        };
        let cluster_type = match text("cluster_type").as_deref() {
            Some("primary") => Some(ClusterType::Primary),
            Some("standby") => Some(ClusterType::Standby),
            _ => None,
        };
        Some(PermanentSlot { kind, cluster_type })
    }
}

impl StandbyCluster {
    /// `None` unless one of host, port and restore command is set.
    fn parse(value: &Value, warnings: &mut Vec<Warning>) -> Option<StandbyCluster> {
        let section = value.as_object()?;
        let text = |key: &str| {
            section
                .get(key)
                .filter(|value| truthy(value))
                .map(python_str)
        };
        ["host", "port", "restore_command"]
            .into_iter()
            .find_map(text)?;
        let methods = match section.get("create_replica_methods") {
            Some(Value::Array(methods)) => methods.iter().map(python_str).collect(),
            _ => Vec::new(),
        };
        let port = text("port").filter(|ports| {
            let port = |text: &str| text.trim().parse::<u16>().is_ok_and(|port| port > 0);
            let valid = ports.split(',').all(port);
            if !valid {
                warnings.push(Warning(format!(
                    "standby_cluster.port is '{ports}': expected a port, or one for each host; 5432 is used"
                )));
            }
            valid
        });
        // What PostgreSQL does not take keeps it from reading its configuration, and from starting.
        let name = "recovery_min_apply_delay";
        let delay = section
            .get(name)
            .filter(|value| truthy(value))
            .and_then(|value| parameters::recovery_parameter(name, value, warnings));
        Some(StandbyCluster {
            host: text("host"),
            port,
            primary_slot_name: text("primary_slot_name"),
            create_replica_methods: methods,
            restore_command: text("restore_command"),
            archive_cleanup_command: text("archive_cleanup_command"),
            recovery_min_apply_delay: delay,
        })
    }
}

/// The built-in defaults.
impl Default for GlobalConfig {
    fn default() -> Self {
        GlobalConfig {
            ttl: Duration::from_secs(30),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover: 1_048_576,
            maximum_lag_on_syncnode: None,
            max_timelines_history: 0,
            primary_start_timeout: Duration::from_secs(300),
            primary_stop_timeout: None,
            primary_hang_timeout: Duration::from_secs(HANG_TIMEOUT_S.unsigned_abs()),
            primary_race_backoff: Duration::ZERO,
            synchronous_mode: SynchronousMode::Off,
            synchronous_mode_strict: false,
            synchronous_node_count: 1,
            failsafe_mode: false,
            check_timeline: false,
            pause: false,
            member_slots_ttl: Some(Duration::from_secs(1800)),
            standby_cluster: None,
            use_slots: true,
            permanent_slots: IndexMap::new(),
            ignore_slots: Vec::new(),
        }
    }
}

impl SlotMatcher {
    fn parse(value: &Value) -> Option<SlotMatcher> {
        let matcher = value.as_object()?;
        let text = |key: &str| {
            matcher
                .get(key)
                .filter(|value| truthy(value))
                .map(python_str)
        };
        Some(SlotMatcher {
            name: matcher
                .get("name")
                .filter(|name| !name.is_null())
                .map(python_str),
            kind: text("type"),
            database: text("database"),
            plugin: text("plugin"),
        })
    }

    /// Whether the slot is one to leave alone.
    pub fn matches(&self, name: &str, kind: &SlotKind) -> bool {
        let (type_, database, plugin) = match kind {
            SlotKind::Physical => ("physical", None, None),
            SlotKind::Logical { database, plugin } => {
                ("logical", Some(database.as_str()), Some(plugin.as_str()))
            }
        };
        let accepts = |wanted: &Option<String>, actual: Option<&str>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| Some(wanted) == actual)
        };
        accepts(&self.name, Some(name))
            && accepts(&self.kind, Some(type_))
            && accepts(&self.database, database)
            && accepts(&self.plugin, plugin)
    }
}
