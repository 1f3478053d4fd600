//! Citus is not among Debian's packages. What stands in for it here is an extension of that name for the real
//! PostgreSQL: its table of nodes, its rules for changing that, and a library to preload.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::scratch::Scratch;

const CONTROL: &str = include_str!("citus/citus.control");
const SCRIPT: &str = include_str!("citus/citus--1.0.sql");
const LIBRARY: &str = include_str!("citus/citus.c");

/// Makes a PostgreSQL that has the extension of the one in `bin_dir`, which must be laid out as Debian does; the
/// directory of its programs. They find their files by where they are themselves.
pub(crate) fn postgresql_with_citus(scratch: &Scratch, bin_dir: &Path) -> Result<PathBuf> {
    let version = bin_dir.parent().and_then(Path::file_name);
    let version = version
        .and_then(|name| name.to_str())
        .context("no version")?;
    let usr = bin_dir.ancestors().nth(4).context("too short a path")?;
    let (lib, share) = (
        Path::new("lib/postgresql").join(version),
        Path::new("share/postgresql").join(version),
    );
    let own = scratch.path().join("citus/usr");
    let (own_lib, own_share) = (own.join(&lib), own.join(&share));
    for directory in ["bin", "lib"] {
        std::fs::create_dir_all(own_lib.join(directory))?;
    }
    std::fs::create_dir_all(own_share.join("extension"))?;
    for program in entries(bin_dir)? {
        std::fs::copy(&program, own_lib.join("bin").join(name(&program)?))?;
    }
    link_all(&usr.join(&lib).join("lib"), &own_lib.join("lib"))?;
    link_all(&usr.join(&share), &own_share)?;
    let extensions = own_share.join("extension");
    link_all(&usr.join(&share).join("extension"), &extensions)?;
    std::fs::write(extensions.join("citus.control"), CONTROL)?;
    std::fs::write(extensions.join("citus--1.0.sql"), SCRIPT)?;

    let source = scratch.path().join("citus/citus.c");
    std::fs::write(&source, LIBRARY)?;
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(own_lib.join("lib/citus.so"))
        .arg(format!("-DVERSION={version}"))
        .arg(&source)
        .output()
        .context("cannot run cc")?;
    ensure!(
        compiled.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    Ok(own_lib.join("bin"))
}

fn link_all(from: &Path, to: &Path) -> Result<()> {
    for entry in entries(from)? {
        let link = to.join(name(&entry)?);
        if !link.exists() {
            symlink(&entry, link)?;
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

fn name(path: &Path) -> Result<&std::ffi::OsStr> {
    path.file_name().context("no name")
}
