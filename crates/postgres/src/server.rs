use std::sync::{Arc, RwLock};

use crate::session::Session;
use crate::settings::Settings;

/// The local server. Cheap to clone; clones share the pooled connection and the settings.
#[derive(Clone)]
pub struct Server {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    settings: RwLock<Arc<Settings>>,
    pub(crate) session: Session,
}

impl Server {
    /// A server as configured. Touches nothing.
    pub fn new(settings: Settings) -> Self {
        Server {
            inner: Arc::new(Inner {
                settings: RwLock::new(Arc::new(settings)),
                session: Session::default(),
            }),
        }
    }

    /// The settings in use.
    pub fn settings(&self) -> Arc<Settings> {
        self.inner
            .settings
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// Takes over new settings. Operations under way keep the ones they began with; no file is written.
    pub fn replace_settings(&self, settings: Settings) {
        let mut current = self
            .inner
            .settings
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *current = Arc::new(settings);
    }
}
