//! What packages bring. What becomes of it on a machine: `scripts/test-deb.sh`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// systemd finds nothing wrong with the unit files.
#[test]
fn units_are_sound() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // They name programs, which must be there.
    let bin = directory.path().join("bin");
    std::fs::create_dir(&bin)?;
    for name in ["primacy", "patroni"] {
        std::os::unix::fs::symlink(crate::EXECUTABLE, bin.join(name))?;
    }
    let made = Command::new(root.join("scripts/units.sh"))
        .args([directory.path(), &bin])
        .status()?;
    ensure!(made.success(), "scripts/units.sh ended with {made}");
    let units: Vec<_> = std::fs::read_dir(directory.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|it| it == "service"))
        .collect();
    ensure!(units.len() == 5, "{units:?}");
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units)
        .output()
        .context("systemd-analyze is missing: run `make setup`")?;
    let said = String::from_utf8_lossy(&verified.stderr);
    ensure!(verified.status.success() && said.is_empty(), "{said}");
    Ok(())
}
