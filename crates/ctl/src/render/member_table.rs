use primacy_config::yaml;
use primacy_model::{Cluster, Initialize, cluster_document};
use serde_json::{Map, Value, json};

use super::format::{Column, Format, write_rows};
use super::topology::{Node, branch, tree};

/// What a member table shows.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// One cluster.
    Cluster(&'a Cluster),
    /// One group of a Citus cluster.
    Group(u32, &'a Cluster),
    /// All groups of a Citus cluster, in ascending order.
    Groups(&'a [(u32, Cluster)]),
}

/// How a member table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Rows by name, in a format.
    List(Format),
    /// For people, as a replication tree.
    Topology,
}

/// A line of the reasons for a restart that is longer than this is not shown to people.
const REASON_WIDTH: usize = 50;

/// Draws the member table with its title and footer (`patronictl.md` §5). `extended` shows the columns
/// about restarts and the tags even when they are empty. Ends with a newline.
pub fn member_table(scope: &str, view: View<'_>, extended: bool, style: Style) -> String {
    let groups: Vec<(Option<u32>, &Cluster)> = match view {
        View::Cluster(cluster) => vec![(None, cluster)],
        View::Group(group, cluster) => vec![(Some(group), cluster)],
        View::Groups(groups) => groups.iter().map(|(group, c)| (Some(*group), c)).collect(),
    };
    let documents: Vec<(Option<u32>, Map<String, Value>)> = groups
        .into_iter()
        .map(|(group, cluster)| (group, cluster_document(cluster, scope)))
        .collect();
    let format = match style {
        Style::List(format) => format,
        Style::Topology => Format::Pretty,
    };
    let for_people = format == Format::Pretty;

    let rows = rows(scope, &documents, style);
    let columns = columns(&rows, view, extended, for_people);
    let cells: Vec<Vec<Value>> = rows
        .iter()
        .map(|row| {
            columns
                .iter()
                .map(|column| row[column.name].clone())
                .collect()
        })
        .collect();
    let mut text = write_rows(&columns, &cells, format, Some(&title(scope, view)), false);
    if for_people {
        for (group, document) in &documents {
            let footer = footer(document);
            if let (View::Groups(_), Some(group), false) = (view, group, footer.is_empty()) {
                text.push_str(&format!("Citus group: {group}\n"));
            }
            text.push_str(&footer);
        }
    }
    text
}

fn title(scope: &str, view: View<'_>) -> String {
    let system = |cluster: &Cluster| match &cluster.initialize {
        Initialize::Absent => "uninitialized".to_owned(),
        Initialize::Running => "initializing".to_owned(),
        Initialize::Done(identifier) => identifier.to_string(),
        Initialize::Invalid(text) => text.clone(),
    };
    match view {
        View::Cluster(cluster) => format!("Cluster: {scope} ({})", system(cluster)),
        View::Group(group, cluster) => {
            format!(
                "Citus cluster: {scope} (group: {group}, {})",
                system(cluster)
            )
        }
        View::Groups(_) => format!("Citus cluster: {scope}"),
    }
}

fn footer(document: &Map<String, Value>) -> String {
    let mut text = String::new();
    if document.contains_key("pause") {
        text.push_str(" Maintenance mode: on\n");
    }
    if let Some(switchover) = document.get("scheduled_switchover") {
        for (label, key) in [
            (" Switchover scheduled at", "at"),
            ("from", "from"),
            ("to", "to"),
        ] {
            if let Some(value) = switchover.get(key).and_then(Value::as_str) {
                text.push_str(&format!("{label:>24}: {value}\n"));
            }
        }
    }
    text
}

fn columns(
    rows: &[Map<String, Value>],
    view: View<'_>,
    extended: bool,
    for_people: bool,
) -> Vec<Column> {
    let lag = |name| {
        if for_people {
            Column {
                header: "Lag",
                ..Column::right(name)
            }
        } else {
            Column::right(name)
        }
    };
    let any = |name: &str| rows.iter().any(|row| row[name] != json!(""));
    let mut columns = Vec::new();
    if !for_people {
        columns.push(Column::left("Cluster"));
    }
    if matches!(view, View::Groups(_)) || matches!(view, View::Group(..)) && !for_people {
        columns.push(Column::right("Group"));
    }
    columns.extend([
        Column::left("Member"),
        Column::left("Host"),
        Column::left("Role"),
        Column::left("State"),
        Column::right("TL"),
        Column::right("Receive LSN"),
        lag("Receive Lag"),
        Column::right("Replay LSN"),
        lag("Replay Lag"),
    ]);
    let optional = [
        "Pending restart",
        "Pending restart reason",
        "Scheduled restart",
        "Tags",
    ];
    columns.extend(
        optional
            .into_iter()
            .filter(|name| extended || any(name))
            .map(Column::left),
    );
    // Ours: the table is Patroni's, unless it is asked for more, where fences are as they should be and every server
    // answers.
    let fence_tells = rows
        .iter()
        .any(|row| !matches!(text(row, "Fence"), "" | "armed"));
    columns.extend((any("Fence") && (extended || fence_tells)).then_some(Column::left("Fence")));
    columns.extend(any("Hang").then_some(Column::left("Hang")));
    columns
}

/// Every row with all of its columns.
fn rows(
    scope: &str,
    documents: &[(Option<u32>, Map<String, Value>)],
    style: Style,
) -> Vec<Map<String, Value>> {
    let everybody = documents.iter().flat_map(|(_, document)| members(document));
    let with_port = ports_needed(everybody);
    let mut rows = Vec::new();
    for (group, document) in documents {
        let members: Vec<&Map<String, Value>> = members(document).collect();
        for (index, shown) in order(&members, style) {
            let mut row = row(members[index], with_port, style);
            row.insert("Cluster".into(), json!(scope));
            row.insert(
                "Group".into(),
                group.map_or(json!(""), |group| json!(group)),
            );
            row.insert("Member".into(), json!(shown));
            rows.push(row);
        }
    }
    rows
}

fn members(document: &Map<String, Value>) -> impl Iterator<Item = &Map<String, Value>> {
    document
        .get("members")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
}

/// The members in the order shown, each with its name as shown.
fn order(members: &[&Map<String, Value>], style: Style) -> Vec<(usize, String)> {
    let nodes: Vec<Node<'_>> = members
        .iter()
        .map(|member| Node {
            name: text(member, "name"),
            leads: text(member, "role").ends_with("leader"),
            replicatefrom: member
                .get("tags")
                .and_then(|tags| tags.get("replicatefrom"))
                .and_then(Value::as_str),
        })
        .collect();
    let order: Vec<(usize, usize)> = match style {
        Style::Topology => tree(&nodes),
        Style::List(_) => {
            let mut order: Vec<usize> = (0..nodes.len()).collect();
            order.sort_by_key(|index| nodes[*index].name);
            order.into_iter().map(|index| (index, 0)).collect()
        }
    };
    order
        .into_iter()
        .map(|(index, depth)| (index, branch(nodes[index].name, depth)))
        .collect()
}

/// Ports are shown for all members once they tell something: one is unusual, or two members share a host.
fn ports_needed<'a>(members: impl Iterator<Item = &'a Map<String, Value>>) -> bool {
    let mut hosts = std::collections::BTreeSet::new();
    members
        .filter(|member| member.contains_key("host"))
        .any(|member| {
            member.get("port") != Some(&json!(5432)) || !hosts.insert(text(member, "host"))
        })
}

fn row(member: &Map<String, Value>, with_port: bool, style: Style) -> Map<String, Value> {
    let host = match (text(member, "host"), member.get("port")) {
        (host, Some(port)) if with_port => format!("{host}:{port}"),
        (host, _) => host.to_owned(),
    };
    let (receive, replay) = positions(member);
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| row.insert(name.to_owned(), value);
    put("Host", json!(host));
    put("Role", json!(title_case(text(member, "role"))));
    put("State", json!(text(member, "state")));
    put("TL", member.get("timeline").cloned().unwrap_or(json!("")));
    put("Receive LSN", receive.0);
    put("Receive Lag", receive.1);
    put("Replay LSN", replay.0);
    put("Replay Lag", replay.1);
    put(
        "Pending restart",
        json!(if member.contains_key("pending_restart") {
            "*"
        } else {
            ""
        }),
    );
    put(
        "Pending restart reason",
        json!(restart_reasons(member, style)),
    );
    put("Scheduled restart", json!(scheduled_restart(member)));
    put("Tags", tags(member, style));
    put("Fence", json!(text(member, "fence")));
    put("Hang", json!(hang(member)));
    row
}

fn text<'a>(member: &'a Map<String, Value>, key: &str) -> &'a str {
    member.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn title_case(role: &str) -> String {
    let words = role.split('_').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Receive and replay, each as position and lag. Releases before 4.1 publish one position: what it means
/// depends on how the member gets its WAL.
fn positions(member: &Map<String, Value>) -> ((Value, Value), (Value, Value)) {
    let pair = |prefix: &str| {
        let lsn = text(member, &format!("{prefix}lsn"));
        (json!(lsn), lag_mb(member.get(&format!("{prefix}lag"))))
    };
    let (receive, replay, single) = (pair("receive_"), pair("replay_"), pair(""));
    let unknown = |pair: &(Value, Value)| pair.0 == json!("unknown");
    match (unknown(&receive) && unknown(&replay), unknown(&single)) {
        (true, false) if text(member, "state") == "streaming" => (single, replay),
        (true, false) => (receive, single),
        _ => (receive, replay),
    }
}

/// Whole mebibytes, halves to the even neighbour; empty when the lag is not known.
fn lag_mb(lag: Option<&Value>) -> Value {
    const MB: u64 = 1 << 20;
    match lag.and_then(Value::as_u64) {
        None => json!(""),
        Some(bytes) => {
            let (whole, rest) = (bytes / MB, bytes % MB);
            let up = rest > MB / 2 || rest == MB / 2 && whole % 2 == 1;
            json!(whole + u64::from(up))
        }
    }
}

fn restart_reasons(member: &Map<String, Value>, style: Style) -> String {
    let for_people = !matches!(
        style,
        Style::List(Format::Tsv | Format::Json | Format::Yaml)
    );
    let reasons = member
        .get("pending_restart_reason")
        .and_then(Value::as_object);
    let lines = reasons.into_iter().flatten().map(|(name, reason)| {
        let value = |key: &str| reason.get(key).and_then(Value::as_str).unwrap_or_default();
        let line = format!("{name}: {}->{}", value("old_value"), value("new_value"));
        if for_people && line.chars().count() > REASON_WIDTH {
            format!("{name}: [hidden - too long]")
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn scheduled_restart(member: &Map<String, Value>) -> String {
    let Some(restart) = member.get("scheduled_restart").and_then(Value::as_object) else {
        return String::new();
    };
    match text(restart, "postgres_version") {
        "" => text(restart, "schedule").to_owned(),
        version => format!("{} if version < {version}", text(restart, "schedule")),
    }
}

/// The probes that the server does not answer.
fn hang(member: &Map<String, Value>) -> String {
    let probes = member.get("hang").and_then(Value::as_array);
    let names = probes.into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

fn tags(member: &Map<String, Value>, style: Style) -> Value {
    let Some(tags) = member.get("tags") else {
        return json!("");
    };
    match style {
        Style::List(Format::Json | Format::Yaml) => tags.clone(),
        Style::List(Format::Pretty) => {
            json!(yaml::to_block(tags, yaml::KeyOrder::Sorted).trim_end_matches('\n'))
        }
        Style::List(Format::Tsv) | Style::Topology => json!(yaml::to_flow(tags)),
    }
}
