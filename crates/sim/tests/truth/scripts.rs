//! What is done. Each script finds `n1`, a primary, and its standbys `n2` and `n3`.

use crate::trace::Step;

/// A script and what real servers showed when it was last recorded.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) steps: Vec<Step>,
    pub(crate) stored: &'static str,
}

pub(crate) fn all() -> [Script; 4] {
    [waiting(), crash(), switchover(), apart()]
}

/// Whom commits wait for, and what `sync_state` says of it.
pub(crate) fn waiting() -> Script {
    let mut steps = Vec::new();
    let mut number = 0;
    let mut commit = |level: &str| {
        number += 1;
        Step::Commit("n1".into(), format!("c{number:02}"), level.into())
    };
    // Everybody is there.
    for listed in [
        "n2",
        "2 (n2,n3)",
        "FIRST 1 (n3,n2)",
        "ANY 1 (n2,n3)",
        "ANY 2 (n2,n3)",
        "",
    ] {
        steps.extend([names("n1", listed), commit("on")]);
    }
    // One is not: it is stopped, and comes back.
    steps.extend([stop_fast("n2"), names("n1", "n2")]);
    steps.extend(["on", "local", "off"].map(&mut commit));
    steps.push(names("n1", "2 (n2,n3)"));
    steps.push(names("n1", "FIRST 1 (n2,n3)"));
    steps.extend([names("n1", "ANY 1 (n2,n3)"), commit("on")]);
    steps.extend([names("n1", "ANY 2 (n2,n3)"), commit("on"), commit("on")]);
    steps.push(start("n2", "n1"));
    // It is connected and says nothing.
    steps.extend([
        freeze("n3"),
        names("n1", "FIRST 1 (n3,n2)"),
        commit("on"),
        commit("local"),
    ]);
    steps.push(names("n1", "ANY 1 (n3,n2)"));
    steps.extend([names("n1", "2 (n3,n2)"), commit("on")]);
    steps.push(names("n1", ""));
    steps.extend([names("n1", "n3"), commit("on"), thaw("n3")]);
    Script {
        name: "waiting",
        steps,
        stored: include_str!("../../traces/waiting.jsonl"),
    }
}

/// What crashes leave, and what a failover loses.
pub(crate) fn crash() -> Script {
    let steps = vec![
        // A commit that waits is exposed by a crash, without ever having been acknowledged.
        names("n1", "n2"),
        commit("n1", "c1"),
        stop_fast("n2"),
        commit("n1", "c2"),
        stop_immediate("n1"),
        start_primary("n1"),
        start("n2", "n1"),
        // A fast stop ends who waits as well.
        freeze("n2"),
        commit("n1", "c3"),
        thaw("n2"),
        stop_fast("n2"),
        commit("n1", "c4"),
        stop_fast("n1"),
        start_primary("n1"),
        names("n1", ""),
        start("n2", "n1"),
        // Standbys keep what they received, however they end.
        stop_fast("n2"),
        stop_immediate("n3"),
        stop_immediate("n1"),
        start("n2", "n1"),
        start("n3", "n2"),
        start_primary("n1"),
        commit("n1", "c5"),
        // What was not sent is lost with the old primary, which has diverged.
        stop_fast("n2"),
        commit("n1", "c6"),
        stop_immediate("n1"),
        start("n2", "n1"),
        promote("n2"),
        commit("n2", "c7"),
        compare("n1", "n2"),
        recover("n1"),
        compare("n1", "n2"),
        rewind("n1", "n2"),
        compare("n3", "n2"),
        // The new one ends before its next checkpoint may have come about, or after it.
        stop_immediate("n2"),
        recover("n2"),
        start_primary("n2"),
    ];
    Script {
        name: "crash",
        steps,
        stored: include_str!("../../traces/crash.jsonl"),
    }
}

/// A planned change, and timelines after it.
pub(crate) fn switchover() -> Script {
    let steps = vec![
        commit("n1", "c1"),
        // A fast stop ends when every standby has the shutdown checkpoint.
        freeze("n3"),
        stop_fast("n1"),
        thaw("n3"),
        promote("n2"),
        commit("n2", "c2"),
        compare("n1", "n2"),
        compare("n3", "n2"),
        rewind("n1", "n2"),
        follow("n3", "n2"),
        start("n1", "n2"),
        commit("n2", "c3"),
        // The old primary runs on.
        promote("n3"),
        commit("n2", "c4"),
        commit("n3", "c5"),
        compare("n2", "n3"),
        compare("n1", "n3"),
        compare("n3", "n2"),
        stop_fast("n2"),
        compare("n2", "n3"),
        rewind("n2", "n3"),
        stop_fast("n1"),
        compare("n1", "n3"),
        rewind("n1", "n3"),
    ];
    Script {
        name: "switchover",
        steps,
        stored: include_str!("../../traces/switchover.jsonl"),
    }
}

/// Two servers that are promoted from the same position, without knowing of each other.
pub(crate) fn apart() -> Script {
    let steps = vec![
        commit("n1", "c1"),
        stop_fast("n1"),
        promote("n2"),
        promote("n3"),
        commit("n3", "c2"),
        commit("n2", "c3"),
        commit("n2", "c4"),
        commit("n2", "c5"),
        stop_fast("n3"),
        commit("n2", "c6"),
        compare("n3", "n2"),
        rewind("n3", "n2"),
        compare("n1", "n2"),
        start("n1", "n2"),
    ];
    Script {
        name: "apart",
        steps,
        stored: include_str!("../../traces/apart.jsonl"),
    }
}

fn start(server: &str, upstream: &str) -> Step {
    Step::Start(server.into(), Some(upstream.into()))
}

fn start_primary(server: &str) -> Step {
    Step::Start(server.into(), None)
}

fn follow(server: &str, upstream: &str) -> Step {
    Step::Follow(server.into(), upstream.into())
}

fn stop_fast(server: &str) -> Step {
    Step::StopFast(server.into())
}

fn stop_immediate(server: &str) -> Step {
    Step::StopImmediate(server.into())
}

fn freeze(server: &str) -> Step {
    Step::Freeze(server.into())
}

fn thaw(server: &str) -> Step {
    Step::Thaw(server.into())
}

fn names(server: &str, names: &str) -> Step {
    Step::Names(server.into(), names.into())
}

fn commit(server: &str, name: &str) -> Step {
    Step::Commit(server.into(), name.into(), "on".into())
}

fn promote(server: &str) -> Step {
    Step::Promote(server.into())
}

fn recover(server: &str) -> Step {
    Step::Recover(server.into())
}

fn compare(server: &str, primary: &str) -> Step {
    Step::Compare(server.into(), primary.into())
}

fn rewind(server: &str, source: &str) -> Step {
    Step::Rewind(server.into(), source.into())
}
