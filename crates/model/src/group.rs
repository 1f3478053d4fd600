use std::fmt;

/// The number of a group of servers in a Citus cluster (`dcs.md` §13): each is a cluster of its own, with its keys
/// below `/<namespace>/<scope>/<group>/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CitusGroup(pub u32);

impl CitusGroup {
    /// The group whose primary knows where the others' primaries are.
    pub const COORDINATOR: CitusGroup = CitusGroup(0);

    /// Reads an element of a path: decimal, without leading zeros. Other elements are no groups.
    pub fn parse(element: &str) -> Option<Self> {
        let canonical = element == "0" || !element.starts_with(['0', '+']);
        canonical.then(|| element.parse().ok().map(CitusGroup))?
    }
}

impl fmt::Display for CitusGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_decimals_without_leading_zeros() {
        for (element, group) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("10", Some(10)),
            ("00", None),
            ("01", None),
            ("+1", None),
            ("-1", None),
            ("", None),
            ("leader", None),
            ("4294967296", None),
        ] {
            assert_eq!(
                CitusGroup::parse(element),
                group.map(CitusGroup),
                "{element:?}"
            );
        }
    }
}
