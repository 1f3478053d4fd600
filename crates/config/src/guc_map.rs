use indexmap::IndexMap;
use serde_json::Value;

/// PostgreSQL parameters by name: ordered, names compared without regard to case, the most recent
/// spelling of a name is kept (`configuration.md` §0.4).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct GucMap(IndexMap<String, (String, Value)>);

impl GucMap {
    /// No parameters.
    pub fn new() -> Self {
        GucMap::default()
    }

    /// The entries of a JSON object.
    pub fn from_object(object: &crate::Map) -> Self {
        object
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .get(&name.to_ascii_lowercase())
            .map(|(_, value)| value)
    }

    /// Whether it is set.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(&name.to_ascii_lowercase())
    }

    /// Sets a parameter; an existing one keeps its place.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        let name = name.into();
        self.0
            .insert(name.to_ascii_lowercase(), (name, value.into()));
    }

    /// Takes a parameter out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0
            .shift_remove(&name.to_ascii_lowercase())
            .map(|(_, value)| value)
    }

    /// Names as last spelled, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.values().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// As a JSON object.
    pub fn to_object(&self) -> crate::Map {
        self.iter()
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    }
}

impl FromIterator<(String, Value)> for GucMap {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(entries: I) -> Self {
        let mut map = GucMap::new();
        for (name, value) in entries {
            map.insert(name, value);
        }
        map
    }
}
