use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// The name of a member, unique in its cluster. Compared exactly, except against
/// `synchronous_standby_names` and `/sync`, where PostgreSQL ignores case: see
/// [`MemberName::matches_application_name`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberName(String);

impl MemberName {
    /// Wraps a name as it is.
    pub fn new(name: impl Into<String>) -> Self {
        MemberName(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other`, taken from `/sync` or `synchronous_standby_names`, means this member
    /// (`ha.md` §0: such comparisons ignore case).
    pub fn matches_application_name(&self, other: &str) -> bool {
        self.0.eq_ignore_ascii_case(other)
    }
}

impl Deref for MemberName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for MemberName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for MemberName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for MemberName {
    fn from(name: &str) -> Self {
        MemberName(name.to_owned())
    }
}

impl From<String> for MemberName {
    fn from(name: String) -> Self {
        MemberName(name)
    }
}

impl PartialEq<str> for MemberName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for MemberName {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A timeline of the write-ahead log. Zero means "not known" on the wire and is never held here:
/// use [`Timeline::known`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl Timeline {
    /// The timeline of a number from the wire, `None` for zero and for what no timeline can be.
    pub fn known(number: u64) -> Option<Timeline> {
        u32::try_from(number).ok().filter(|n| *n > 0).map(Timeline)
    }

    /// The timeline after this one.
    pub fn next(self) -> Timeline {
        Timeline(self.0.saturating_add(1))
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// PostgreSQL's database system identifier in decimal: digits only, at least ten of them
/// (`ha.md` §3 D). Servers with different ones must never replicate from each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemIdentifier(String);

impl SystemIdentifier {
    /// `None` when the text is not a system identifier.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit());
        valid.then(|| SystemIdentifier(text.to_owned()))
    }

    /// The decimal text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
