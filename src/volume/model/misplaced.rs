//! Directories that do not count where they are (FORMAT section 7.1).

use std::fmt;

/// Why an authentic directory cannot be used where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced {
    /// Its descriptor was made for another place.
    Elsewhere,
    /// It has the keys of the directory above, and that one has others.
    Keys,
    /// Its policy has been changed since it was made.
    Older,
    /// It is from before directories said where they belong, and all others of the volume do.
    Unplaced,
    /// The directory above cannot be used, so nobody can say what belongs below it.
    Above,
    /// Another directory has its id: one of them is a copy.
    Twin,
    /// The place belongs to another directory, which the mount has not taken away from there.
    Taken,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elsewhere => "it was made for another place: exchanged, moved or copied outside",
            Self::Keys => "it inherits keys that the directory above does not have",
            Self::Older => "its policy has been changed since: an older one was put back",
            Self::Unplaced => "it does not say where it belongs: an older one was put back",
            Self::Above => "the directory above it cannot be used",
            Self::Twin => {
                "another directory of the vault has the same id: it is a copy, or an older one was \
                 put back where that one was before"
            }
            Self::Taken => {
                "its place belongs to another directory, which the mount neither removed nor renamed: \
                 an older one was put back in place of that one, with other keys perhaps"
            }
        })
    }
}
