//! What operators type and see, command by command (`patronictl.md` §7).

mod command_line;
mod edit_config;
mod groups;
mod members;
mod query;
mod restart;
mod show;
mod switchover;
mod whole_cluster;
mod why;
mod world;

use serde_json::Value;

const TABLE: &str = "\
+ Cluster: demo (7710395762296189624) -----------+----+-------------+-----+------------+-----+
| Member | Host            | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+
| pg0    | 10.0.0.11:15432 | Leader  | running   |  1 |             |     |            |     |
| pg1    | 10.0.0.12:15432 | Replica | streaming |  1 |   0/468B028 |   0 |  0/468B028 |   0 |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+
";

/// The table, then this.
fn after_table(text: &str) -> String {
    format!("{TABLE}{text}")
}

fn body(asked: &str) -> Value {
    serde_json::from_str(&asked[asked.find('{').unwrap()..]).unwrap()
}
