/// The name of the physical slot that a member streams through (`ha.md` §18.1): lower case; `-` and
/// `.` become `_`; any other character outside `[a-z0-9_]` becomes `u` and its code point in decimal,
/// at least four digits; cut to PostgreSQL's 63 bytes.
///
/// Two members may end up with one slot name; that is logged elsewhere, and one slot results.
pub fn slot_name(member: &str) -> String {
    let mut name = String::with_capacity(member.len());
    for c in member.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            '-' | '.' => name.push('_'),
            other => name.push_str(&format!("u{:04}", other as u32)),
        }
    }
    name.truncate(63);
    name
}

#[cfg(test)]
mod tests {
    use super::slot_name;

    #[test]
    fn member_names_become_slot_names() {
        for (member, slot) in [
            ("pg1", "pg1"),
            ("PG-Node.1", "pg_node_1"),
            ("pg node", "pgu0032node"),
            ("ü", "u0252"),
            ("😀", "u128512"),
        ] {
            assert_eq!(slot_name(member), slot);
        }
        assert_eq!(slot_name(&"x".repeat(80)).len(), 63);
    }
}
