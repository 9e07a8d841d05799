//! The directory that a file lies in.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the directory entry of `path` durable.
pub(in crate::keystore) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

/// The directory that holds `path`.
pub(in crate::keystore) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_directory_lies_in_the_current_one() {
        assert_eq!(parent(Path::new("store.db")), Path::new("."));
        assert_eq!(parent(Path::new("/a/store.db")), Path::new("/a"));
    }
}
