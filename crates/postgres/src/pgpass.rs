//! The password file (`configuration.md` §6.6).

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::conninfo::Conninfo;
use crate::settings::Credentials;

/// Lines for every host of a target; empty when there is no password.
pub(crate) fn lines(target: &Conninfo, credentials: &Credentials) -> String {
    let Some(password) = &credentials.password else {
        return String::new();
    };
    let user = escape(credentials.username.as_deref().unwrap_or_default());
    let password = escape(password.expose());
    let mut addresses = target.addresses();
    let socket = addresses
        .iter()
        .find(|(host, _)| host.starts_with('/'))
        .map(|(_, port)| *port);
    if let Some(port) = socket.filter(|_| addresses.iter().all(|(host, _)| host != "localhost")) {
        // libpq looks up the default socket directory under this name.
        addresses.push(("localhost".into(), port));
    }
    addresses
        .iter()
        .map(|(host, port)| format!("{}:{port}:*:{user}:{password}\n", escape(host)))
        .collect()
}

fn escape(field: &str) -> String {
    if field.is_empty() {
        return "*".into();
    }
    field.replace('\\', "\\\\").replace(':', "\\:")
}

/// Replaces the password file, mode 0600; leaves it alone when it has this content already.
/// Returns whether it changed.
pub(crate) fn write(path: &Path, content: &str) -> io::Result<bool> {
    let private = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 == 0)
    };
    if private(path) && std::fs::read_to_string(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    temporary(directory.unwrap_or(Path::new(".")), content)?.persist(path)?;
    Ok(true)
}

/// A password file of its own for one command; removed when dropped.
pub(crate) fn temporary(directory: &Path, content: &str) -> io::Result<NamedTempFile> {
    // NamedTempFile creates with mode 0600.
    let mut file = tempfile::Builder::new()
        .prefix(".pgpass")
        .tempfile_in(directory)?;
    file.write_all(content.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials {
            username: Some(user.into()),
            password: Some(Secret::new(password)),
            ..Credentials::default()
        }
    }

    #[test]
    fn a_line_for_each_host() {
        let target: Conninfo = "host=a,b port=1,2".parse().unwrap();
        assert_eq!(
            lines(&target, &credentials("u", r"p:\q")),
            "a:1:*:u:p\\:\\\\q\nb:2:*:u:p\\:\\\\q\n"
        );
        let socket: Conninfo = "host=/run port=5".parse().unwrap();
        assert_eq!(
            lines(&socket, &credentials("", "p")),
            "/run:5:*:*:p\nlocalhost:5:*:*:p\n"
        );
        assert_eq!(lines(&target, &Credentials::default()), "");
    }

    #[test]
    fn the_file_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        assert!(write(&path, "a\n").unwrap());
        assert!(!write(&path, "a\n").unwrap());
        assert!(write(&path, "b\n").unwrap());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
    }
}
