//! What a check looks at beside names and contents: the second copies of everything, of which the
//! first is enough until it is damaged as well, and attributes.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::{fcntl_dupfd_cloexec, pread};

use super::report::{CheckReport, Repair};
use crate::envelope::layout::HEADER_AREA;
use crate::envelope::{DIR_FILE, XattrKeys};
use crate::volume::backing::handle::Handle;
use crate::volume::backing::handle::open_noatime;
use crate::volume::engine::Volume;
use crate::volume::files::file::File;
use crate::volume::jobs::walk::Visit;
use crate::volume::model::error::Result;
use crate::volume::namespace::descriptor::{Copies, has_attribute};
use crate::volume::namespace::dir::Dir;
use crate::volume::ops::attributes::xattr::damaged_attributes;

/// The bytes of both header slots of a file.
pub(in crate::volume) type HeaderArea = [u8; HEADER_AREA];

impl Volume {
    /// What was found wrong with the volume's own files when it was opened. A volume that may be
    /// changed has written them anew.
    pub(in crate::volume) fn check_own_files(&self, repair: Repair, report: &mut CheckReport) {
        for (file, what) in &self.found {
            report.add(Path::new(".kmsfs").join(file), what, repair == Repair::Yes);
        }
        for stray in &self.strays {
            report.add_leftover(Path::new(".kmsfs").join(stray.path()), repair == Repair::Yes);
        }
    }

    /// The copies of a directory's descriptor, and the directory's attributes.
    pub(in crate::volume) fn check_directory(
        &self,
        visit: &Visit,
        dir: &Dir,
        repair: Repair,
        report: &mut CheckReport,
    ) -> Result<()> {
        let Ok(keys) = dir.keys() else { return Ok(()) };
        let (found, now) = (dir.flaws(), dir.flaws_of(Copies::read(dir)));
        let changes = repair == Repair::Yes;
        if found.file {
            let what = "the directory's descriptor is missing or damaged";
            report.add(visit.path().join(DIR_FILE), what, changes && !now.file);
        }
        if found.attribute {
            let what = "the copy of the directory's descriptor in its attribute is damaged";
            report.add(visit.path(), what, changes && !now.attribute);
        }
        // On a filesystem that keeps no attributes, a repair has made none. Elsewhere any volume that
        // may be changed makes them: tools that copy no attributes leave them out.
        let expected = match changes {
            true => !now.no_attribute,
            false => now.no_attribute && has_attribute(self.tree.root()),
        };
        if found.no_attribute && expected {
            let what = "the copy of the directory's descriptor in its attribute is missing";
            report.add(visit.path(), what, changes);
        }
        let held = Handle::of(fcntl_dupfd_cloexec(&*visit.fd, 0)?)?;
        check_attributes(&held, keys.xattrs(), &visit.path(), report);
        Ok(())
    }

    /// The header slots of a file, which opening it may have repaired, its spill pages and its
    /// attributes.
    pub(in crate::volume) fn check_parts(
        &self,
        (held, file): (&Handle, &File),
        slots: Option<HeaderArea>,
        path: &Path,
        report: &mut CheckReport,
    ) -> Result<()> {
        let content = file.content();
        let vouches = |area: &HeaderArea| content.vouches_for(area);
        if let Some(found) = slots.map(|area| vouches(&area)).transpose()?.flatten() {
            let now = read_slots(held)?.map(|area| vouches(&area)).transpose()?.flatten();
            for (slot, name) in ["first", "second"].into_iter().enumerate() {
                if found.get(slot) == Some(&false) {
                    let repaired = now.is_some_and(|now| now.get(slot) == Some(&true));
                    report.add(path.to_owned(), format!("its {name} header is damaged"), repaired);
                }
            }
        }
        for (group, repaired) in content.damaged_spills()? {
            let what = format!("a copy of its spill page {group} is damaged");
            report.add(path.to_owned(), what, repaired);
        }
        match file.xattr_keys(crate::volume::content::Access::ReadOnly) {
            Ok(Some(keys)) => check_attributes(held, &keys, path, report),
            Ok(None) => {}
            Err(error) => report.add(path.to_owned(), error, false),
        }
        Ok(())
    }
}

/// Both slots as they are; `None` for what is shorter.
pub(in crate::volume) fn read_slots(held: &Handle) -> Result<Option<HeaderArea>> {
    let file = open_noatime(OFlags::RDONLY, |flags| held.open_file(flags))?;
    let mut area = [0; HEADER_AREA];
    let got = pread(file.as_fd(), &mut area, 0)?;
    Ok((got == HEADER_AREA).then_some(area))
}

fn check_attributes(held: &Handle, keys: &XattrKeys, path: &Path, report: &mut CheckReport) {
    match damaged_attributes(held, keys) {
        Ok(0) => {}
        Ok(1) => report.add(path.to_owned(), "an attribute of it is not authentic", false),
        Ok(many) => {
            report.add(
                path.to_owned(),
                format!("{many} attributes of it are not authentic"),
                false,
            );
        }
        Err(error) => {
            report.add(path.to_owned(), format!("its attributes cannot be read: {error}"), false);
        }
    }
}
