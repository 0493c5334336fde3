//! Which role a node begins in: a file in the data directory remembers it, the settings say what the operator wants.
//!
//! A node that was the leader and is started again must not lead beside the one that was promoted meanwhile, and one that was
//! promoted must not fall back behind the leader it replaced because its settings still name that one. So the file says what the
//! node was, and, of one that was promoted, in whose place.

use std::io;
use std::path::Path;

use keyward_storage::disk::{self, Disk};
use keyward_storage::position::Term;
use keyward_storage::replication::Role;

/// The file's name in the data directory.
const FILE: &str = "ROLE";
const HEAD: &str = "keyward role 1";
/// Bytes of the file.
const BYTES_MAX: u64 = 4096;

/// What a node was when it last said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its role.
    pub role: Role,
    /// In which term, or since which.
    pub term: Term,
    /// Whom it was told to follow when it was promoted all the same.
    pub instead_of: Option<String>,
}

/// What a node begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// As the leader.
    Leader,
    /// As the leader, although the settings name another one: that one was replaced by it.
    LeaderInstead,
    /// As a follower.
    Follower,
    /// As the leader, in nobody's place any more: that setting is taken out, so that whoever sets it again means it.
    LeaderByItself,
    /// As a follower of nobody, since the settings name none.
    FollowerOfNobody,
    /// Fenced, since the settings name nobody to follow.
    Fenced,
    /// It led, or may lead, and does when it gets the lease; a follower until then.
    Candidate,
}

impl Begin {
    /// What was kept, and whom the settings name.
    pub fn decide(kept: Option<&Kept>, follow: Option<&str>) -> Begin {
        match (kept.map(|kept| kept.role), follow) {
            (Some(Role::Leader), None) if kept.is_some_and(|kept| kept.instead_of.is_some()) => Begin::LeaderByItself,
            (None | Some(Role::Leader), None) => Begin::Leader,
            (Some(Role::Leader), Some(leader))
                if kept.is_some_and(|kept| kept.instead_of.as_deref() == Some(leader)) =>
            {
                Begin::LeaderInstead
            }
            (_, Some(_)) => Begin::Follower,
            (Some(Role::Follower), None) => Begin::FollowerOfNobody,
            (Some(Role::Fenced), None) => Begin::Fenced,
        }
    }

    /// The same where a lease says who leads: nobody does without it.
    pub fn under_a_lease(self) -> Begin {
        match self {
            Begin::Leader | Begin::LeaderInstead | Begin::LeaderByItself | Begin::FollowerOfNobody | Begin::Fenced => {
                Begin::Candidate
            }
            Begin::Follower | Begin::Candidate => self,
        }
    }

    /// The role that is.
    pub fn role(self) -> Role {
        match self {
            Begin::Leader | Begin::LeaderInstead | Begin::LeaderByItself => Role::Leader,
            Begin::Follower | Begin::FollowerOfNobody | Begin::Candidate => Role::Follower,
            Begin::Fenced => Role::Fenced,
        }
    }
}

/// Reads the file; `None` where there is none: a node that always had its records to itself, or leads from the first term on.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn read(disk: &dyn Disk, data_dir: &Path) -> io::Result<Option<Kept>> {
    let file = match disk.open(&data_dir.join(FILE), false) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; usize::try_from(file.len()?.min(BYTES_MAX)).unwrap_or(0)];
    file.read_exact_at(0, &mut bytes)?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("{FILE} cannot be understood"));
    parse(std::str::from_utf8(&bytes).map_err(|_| strange())?).map(Some).ok_or_else(strange)
}

fn parse(text: &str) -> Option<Kept> {
    let mut lines = text.lines();
    if lines.next()? != HEAD {
        return None;
    }
    let (mut role, mut term, mut instead_of) = (None, None, None);
    for line in lines {
        match line.split_once(' ')? {
            ("role", word) => {
                role = [Role::Leader, Role::Follower, Role::Fenced].into_iter().find(|role| role.word() == word)
            }
            ("term", number) => term = number.parse().ok().map(Term),
            ("instead-of", leader) => instead_of = Some(leader.to_owned()),
            _ => return None,
        }
    }
    Some(Kept { role: role?, term: term?, instead_of })
}

/// Writes the file; it is durable when this returns.
///
/// # Errors
/// The disk's.
pub fn write(disk: &dyn Disk, data_dir: &Path, kept: &Kept) -> io::Result<()> {
    let mut text = format!("{HEAD}\nrole {}\nterm {}\n", kept.role.word(), kept.term.0);
    if let Some(leader) = &kept.instead_of {
        text.push_str(&format!("instead-of {leader}\n"));
    }
    disk::replace(disk, &data_dir.join("ROLE.new"), &data_dir.join(FILE), |file| {
        file.write_all_at(0, text.as_bytes())?;
        file.sync_data()
    })
}

#[cfg(test)]
mod tests {
    use keyward_storage::disk::MemoryDisk;

    use super::*;

    /// What was kept beats what is missing in the settings, and what the operator has changed in them beats what was kept.
    #[test]
    fn a_node_is_what_it_was_unless_it_is_told_otherwise() {
        let disk = MemoryDisk::new();
        let dir = Path::new("/data");
        disk.create_dir_all(dir).unwrap();
        assert_eq!(read(&disk, dir).unwrap(), None);
        let kept = |role, instead_of: Option<&str>| {
            let kept = Kept { role, term: Term(3), instead_of: instead_of.map(str::to_owned) };
            write(&disk, dir, &kept).unwrap();
            assert_eq!(read(&disk, dir).unwrap().as_ref(), Some(&kept));
            kept
        };
        assert_eq!(Begin::decide(None, None), Begin::Leader);
        assert_eq!(Begin::decide(None, Some("http://a:1")), Begin::Follower);
        let promoted = kept(Role::Leader, Some("http://a:1"));
        assert_eq!(Begin::decide(Some(&promoted), Some("http://a:1")), Begin::LeaderInstead);
        assert_eq!(Begin::decide(Some(&promoted), Some("http://c:1")), Begin::Follower, "the settings were changed");
        assert_eq!(Begin::decide(Some(&promoted), None), Begin::LeaderByItself);
        assert_eq!(Begin::decide(Some(&kept(Role::Leader, None)), None), Begin::Leader);
        assert_eq!(Begin::decide(Some(&kept(Role::Leader, None)), Some("http://a:1")), Begin::Follower);
        assert_eq!(Begin::decide(Some(&kept(Role::Follower, None)), None), Begin::FollowerOfNobody);
        assert_eq!(Begin::decide(Some(&kept(Role::Fenced, None)), None), Begin::Fenced);
        assert_eq!(Begin::decide(Some(&kept(Role::Fenced, None)), Some("http://b:1")), Begin::Follower);
        for strange in
            ["", "keyward role 2\nrole leader\nterm 1\n", "keyward role 1\nrole king\nterm 1\n", "keyward role 1\n"]
        {
            assert_eq!(parse(strange), None, "{strange:?}");
        }
    }
}
