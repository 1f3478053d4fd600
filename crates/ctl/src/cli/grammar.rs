use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, Command, ValueHint};

use crate::render::Format;

/// Which command line is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Exactly Patroni's `patronictl`.
    Patronictl,
    /// `primacy`, where the same commands are subcommands.
    Primacy,
}

impl Program {
    /// As it is called in usage texts.
    pub fn name(self) -> &'static str {
        match self {
            Program::Patronictl => "patronictl",
            Program::Primacy => "primacy",
        }
    }
}

/// A command: its name, what its usage says after the name, what it is for.
struct Summary(&'static str, &'static str, &'static str);

const ONE: &str = "[OPTIONS] [CLUSTER_NAME]";
const MANY: &str = "[OPTIONS] [CLUSTER_NAMES]...";
const MEMBERS: &str = "[OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...";

const SUMMARIES: [Summary; 20] = [
    Summary("demote-cluster", ONE, "Demote cluster to a standby cluster"),
    Summary(
        "dsn",
        ONE,
        "Generate a dsn for the provided member, defaults to a dsn of the leader",
    ),
    Summary("edit-config", ONE, "Edit cluster configuration"),
    Summary("failover", ONE, "Failover to a replica"),
    Summary(
        "flush",
        "[OPTIONS] CLUSTER_NAME [MEMBER_NAMES]... {restart|switchover}",
        "Discard scheduled events",
    ),
    Summary("history", ONE, "Show the history of failovers/switchovers"),
    Summary("list", MANY, "List the cluster members"),
    Summary("pause", ONE, "Disable auto failover"),
    Summary(
        "promote-cluster",
        ONE,
        "Promote cluster, make it run standalone",
    ),
    Summary("query", ONE, "Send SQL to a member's server"),
    Summary("reinit", MEMBERS, "Reinitialize cluster member"),
    Summary("reload", MEMBERS, "Reload cluster member configuration"),
    Summary(
        "remove",
        "[OPTIONS] CLUSTER_NAME",
        "Remove cluster from DCS",
    ),
    Summary("restart", MEMBERS, "Restart cluster member"),
    Summary("resume", ONE, "Resume auto failover"),
    Summary("show-config", ONE, "Show cluster configuration"),
    Summary("switchover", ONE, "Switchover to a replica"),
    Summary(
        "topology",
        MANY,
        "Print the topology of the cluster as a tree",
    ),
    Summary(
        "version",
        "[OPTIONS] [CLUSTER_NAME] [MEMBER_NAMES]...",
        "Output version of the command or of a running instance",
    ),
    Summary(
        WHY,
        "[OPTIONS] [MEMBER_NAMES]...",
        "Tell what the members did and left, and why",
    ),
];

const QUERY: &str = "query";

/// Ours alone: patronictl has no such command.
const WHY: &str = "why";

pub(super) const ROLES: [&str; 6] = [
    "leader",
    "primary",
    "standby-leader",
    "replica",
    "standby",
    "any",
];

/// The order in which people know it.
const HELP: &str = "Usage: {usage}\n\n  {about}\n\nOptions:\n{options}\n";

/// Whether it is one of the commands of this crate.
pub fn is_command(name: &str) -> bool {
    SUMMARIES.iter().any(|Summary(known, ..)| *known == name)
}

/// The whole command line of a program.
pub fn command(program: Program) -> Command {
    let command = Command::new(program.name())
        .bin_name(program.name())
        .override_usage(format!("{} [OPTIONS] COMMAND [ARGS]...", program.name()))
        .help_template(format!("{HELP}\nCommands:\n{{subcommands}}\n"))
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .subcommand_value_name("COMMAND")
        .about("What operators do with a cluster of PostgreSQL servers")
        .args(configuration_options())
        .arg(help_option());
    command.subcommands(subcommands(program))
}

/// The commands, to be put below a command line. As `primacy` each also takes the options that choose the
/// configuration.
pub fn subcommands(program: Program) -> Vec<Command> {
    SUMMARIES
        .iter()
        .filter(|Summary(name, ..)| program == Program::Primacy || *name != WHY)
        .map(|Summary(name, usage, about)| {
            let command = Command::new(*name)
                .about(*about)
                .override_usage(format!("{} {name} {usage}", program.name()))
                .help_template(HELP)
                .disable_help_flag(true)
                .args_override_self(true)
                .args(arguments(name))
                .arg(help_option());
            match program {
                Program::Patronictl => command,
                // Whose own options have these letters.
                Program::Primacy if *name == QUERY => {
                    command.args(configuration_options().map(|option| option.short(None::<char>)))
                }
                Program::Primacy => command.args(configuration_options()),
            }
        })
        .collect()
}

/// The options that choose the configuration. Their variables are read elsewhere: these must count less than an option given after the command.
pub fn configuration_options() -> [Arg; 3] {
    [
        option("config-file", Some('c'), "Configuration file").value_hint(ValueHint::AnyPath),
        option("dcs-url", Some('d'), "The DCS connect url").visible_alias("dcs"),
        flag("insecure", "Allow connections to SSL sites without certs").short('k'),
    ]
}

fn help_option() -> Arg {
    Arg::new("help")
        .long("help")
        .action(ArgAction::HelpShort)
        .help("Show this message and exit.")
}

fn option(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let option = Arg::new(name)
        .long(name)
        .help(help)
        .num_args(1)
        .value_name("TEXT")
        .value_hint(ValueHint::Other)
        .allow_hyphen_values(true);
    match short {
        Some(short) => option.short(short),
        None => option,
    }
}

/// One of these words. Others are refused elsewhere, in the words that scripts know.
fn choice(option: Arg, words: &'static [&'static str]) -> Arg {
    option.value_parser(Suggested(words))
}

/// Takes any text, and tells shells and readers what it should be.
#[derive(Clone)]
struct Suggested(&'static [&'static str]);

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

fn file(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    option(name, short, help)
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::SetTrue)
}

fn arguments(command: &str) -> Vec<Arg> {
    let cluster = || Arg::new("CLUSTER_NAME").value_hint(ValueHint::Other);
    let required = || cluster().required(true);
    let clusters = || {
        Arg::new("CLUSTER_NAMES")
            .num_args(0..)
            .action(ArgAction::Append)
            .value_hint(ValueHint::Other)
    };
    let members = || {
        Arg::new("MEMBER_NAMES")
            .num_args(0..)
            .action(ArgAction::Append)
            .value_hint(ValueHint::Other)
    };
    let group = || option("group", None, "Citus group").value_name("INTEGER");
    let force = || flag("force", "Do not ask for confirmation at any point");
    let role = |help| {
        let role = option("role", Some('r'), help).value_name("ROLE");
        choice(role, &ROLES)
    };
    let format = || {
        let format = option("format", Some('f'), "Output format").value_name("FORMAT");
        choice(format, &Format::NAMES)
    };
    let watch = || {
        [
            flag("watch2", "Auto update the screen every 2 seconds")
                .short('W')
                .long(None::<&str>),
            option("watch", Some('w'), "Auto update the screen every X seconds")
                .value_name("SECONDS"),
        ]
    };
    let with = |mut some: Vec<Arg>, more: Vec<Arg>| {
        some.extend(more);
        some
    };
    match command {
        "demote-cluster" => vec![
            cluster(),
            option("host", None, "Address of the remote node"),
            option("port", None, "Port of the remote node").value_name("INTEGER"),
            option("restore-command", None, "Command to restore WAL records from the remote primary"),
            option("primary-slot-name", None, "Name of the slot on the remote node to use for replication"),
            force(),
        ],
        "promote-cluster" => vec![cluster(), force()],
        "dsn" => vec![cluster(), role("Give a dsn of any member with this role"), option("member", Some('m'), "Generate a dsn for this member"), group()],
        "edit-config" => vec![
            cluster(),
            flag("quiet", "Do not show changes").short('q'),
            option("set", Some('s'), "Set specific configuration value. Can be specified multiple times")
                .action(ArgAction::Append),
            option("pg", Some('p'), "Set specific PostgreSQL parameter value. Shorthand for -s postgresql.parameters. Can be specified multiple times")
                .action(ArgAction::Append),
            file("apply", None, "Apply configuration from file. Use - for stdin."),
            file("replace", None, "Apply configuration from file, replacing existing configuration. Use - for stdin."),
            force(),
            group(),
        ],
        "failover" => vec![cluster(), option("candidate", None, "The name of the candidate"), force(), group()],
        "switchover" => vec![
            cluster(),
            option("leader", None, "The name of the current leader").visible_alias("primary"),
            option("candidate", None, "The name of the candidate"),
            option("scheduled", None, "Timestamp of a scheduled switchover in unambiguous format (e.g. ISO 8601)"),
            force(),
            group(),
        ],
        "flush" => vec![
            required(),
            choice(members().help("The members, then what to discard"), &["restart", "switchover"]),
            role("Flush only members with this role"),
            force(),
            group(),
        ],
        "history" => vec![cluster(), format(), group()],
        "list" => with(
            vec![
                clusters(),
                flag("extended", "Show some extra information").short('e'),
                flag("timestamp", "Print timestamp").short('t'),
                format(),
                group(),
            ],
            watch().into(),
        ),
        "topology" => with(vec![clusters(), group()], watch().into()),
        "pause" | "resume" => vec![cluster(), flag("wait", "Wait until the state is applied on all nodes"), group()],
        QUERY => with(
            vec![
                cluster(),
                option("command", Some('c'), "The SQL to execute"),
                file("file", Some('f'), "Execute the SQL in this file. Use - for stdin."),
                choice(option("format", None, "Output format").value_name("FORMAT"), &Format::NAMES),
                option("delimiter", None, "What stands between the columns of format tsv"),
                option("username", Some('U'), "The user to connect as"),
                flag("password", "Ask for the user's password"),
                option("dbname", Some('d'), "The database to connect to"),
                role("Send it to a member with this role"),
                option("member", Some('m'), "Send it to this member"),
                group(),
            ],
            watch().into(),
        ),
        "reinit" => vec![
            required(),
            members(),
            flag("from-leader", "Get basebackup from leader"),
            flag("wait", "Wait until reinitialization completes"),
            force(),
            group(),
        ],
        "reload" => vec![required(), members(), role("Reload only members with this role"), force(), group()],
        "remove" => vec![required(), format(), group()],
        "restart" => vec![
            required(),
            members(),
            role("Restart only members with this role"),
            flag("any", "Restart a single member only"),
            option("scheduled", None, "Timestamp of a scheduled restart in unambiguous format (e.g. ISO 8601)"),
            option("pg-version", None, "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2)"),
            flag("pending", "Restart if pending"),
            option("timeout", None, "Return error and fail over if necessary when restarting takes longer than this."),
            force(),
            group(),
        ],
        "show-config" => vec![cluster(), group()],
        "version" => vec![cluster(), members(), group()],
        WHY => vec![
            members(),
            option("CLUSTER_NAME", None, "The cluster, instead of the configured one").long("cluster"),
            option("at", None, "What happened around this time: ISO 8601, or a time of day"),
            option("since", None, "Not what was before"),
            option("until", None, "Not what came later"),
            option("limit", Some('n'), "The newest so many, 100 by default"),
            file("file", None, "Read a journal from disk instead of asking the members; may be repeated")
                .action(ArgAction::Append),
            format(),
            group(),
        ],
        _ => Vec::new(),
    }
}

/// How a command line begins and goes on in its usage text: of a command, or of the whole program.
pub(super) fn usage(program: Program, command: Option<&str>) -> (String, &'static str) {
    let mut summaries = SUMMARIES.iter();
    match summaries.find(|Summary(name, ..)| Some(*name) == command) {
        Some(Summary(name, usage, _)) => (format!("{} {name}", program.name()), usage),
        None => (program.name().to_owned(), "[OPTIONS] COMMAND [ARGS]..."),
    }
}
