//! An end of a channel by its number: it is opened when it is first used.
//!
//! ```text
//!  in a message ---> Handle ---insert---> number of a handle ---first use---> number of an open end
//!                       ^                                                            |
//!                       +--------------------- move, remove -------------------------+
//! ```
//!
//! Opening makes system calls, on a file of which another process is the author, so that it runs without the lock of
//! the table. One thread does it; others that want the end, or want to move it, wait for that one: two would own the
//! end else. Its number may be closed meanwhile; then the end is closed that was opened.

use std::sync::Arc;

use super::channel::Channel;
use super::entry::Entry;
use super::table::{HandleTable, HandleValue};
use super::table_error::TableError;
use crate::crash::test_point;
use crate::handle::{Handle, HandleType, Rights, Subject};

impl HandleTable {
    /// Adds an end of a channel and returns its number, which has the rights of the end.
    ///
    /// # Examples
    /// ```
    /// use tombolo::Channel;
    /// use tombolo::object::HandleTable;
    /// let (ours, theirs) = Channel::create()?;
    /// let table = HandleTable::new();
    /// let number = table.insert_channel(theirs);
    /// table.channel_write(number, 0, b"hello", &[])?;
    /// assert_eq!(ours.read()?.data, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert_channel(&self, channel: Channel) -> HandleValue {
        self.lock().insert(channel.into())
    }

    /// The open end of a channel with this number, which must have these rights. It is closed with its number, and
    /// leaves with it, also while it is used.
    ///
    /// # Errors
    /// In this order: [`TableError::Handle`] (`BAD_HANDLE`, `WRONG_TYPE`, `ACCESS_DENIED`);
    /// [`TableError::NotOpened`] if it came in a message and cannot be opened.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tombolo::object::HandleTable;
    /// use tombolo::Rights;
    /// let table = HandleTable::new();
    /// let (ours, theirs) = table.channel_create()?;
    /// table.channel_write(theirs, 0, b"hello", &[])?;
    /// let channel = table.get_channel(ours, Rights::READ)?;
    /// assert_eq!(channel.read_timeout(Duration::from_secs(10))?.data, b"hello"); // reading by number never waits
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_channel(
        &self,
        number: HandleValue,
        rights: Rights,
    ) -> Result<Arc<Channel>, TableError> {
        loop {
            let entry = self.find(number)?;
            let subject = Subject::from(&entry);
            subject.require_type(Some(HandleType::Channel))?;
            subject.require(rights)?;
            match entry {
                Entry::Channel(channel, _) => return Ok(channel),
                Entry::Handle(handle) => self.open(number, handle)?,
            }
        }
    }

    /// Opens the end that `handle` is, unless another thread has done so, or has moved it.
    fn open(&self, number: HandleValue, handle: Arc<Handle>) -> Result<(), TableError> {
        if !self.begin_opening(number, &handle) {
            return Ok(()); // look again
        }
        let mut opening = Opening { table: self, number, opened: None };
        test_point!("table.opening");
        let opened = Channel::adopt(&handle);
        drop(handle); // before the number is that of the end: its descriptors would keep that open
        let opened = opened.map_err(|source| TableError::NotOpened { number, source })?;
        opening.opened = Some(opened.into());
        Ok(())
    }
}

/// That a thread opens what a number names.
struct Opening<'a> {
    table: &'a HandleTable,
    number: HandleValue,
    opened: Option<Entry>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let left = self.table.end_opening(self.number, self.opened.take());
        drop(left); // without the lock: this closes descriptors
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use rustix::io::Errno;

    use super::*;
    use crate::crash::visits;
    use crate::object::{ChannelError, Status};
    use crate::os::staged::{self, Call};

    const LONG: Duration = Duration::from_secs(20);

    /// A table with the number of an end that has come as a handle, and the other end.
    fn arrived() -> (Arc<HandleTable>, HandleValue, Channel) {
        let (near, far) = Channel::create().unwrap();
        let table = Arc::new(HandleTable::new());
        let number = table.insert(near.release().unwrap());
        (table, number, far)
    }

    #[test]
    fn an_end_that_cannot_be_opened_stays_a_handle_and_the_next_use_opens_it() {
        let (table, number, far) = arrived();
        // The bell's random number: late, after the end was taken.
        let draw = Call::any(libc::SYS_getrandom);
        let refused = || table.channel_write(number, 0, b"refused", &[]).unwrap_err();
        let Some(refused) = staged::refusing(draw, Errno::NOSYS, refused) else {
            return eprintln!("skipped: no filters");
        };
        assert!(matches!(refused, TableError::NotOpened { number: named, .. } if named == number));
        assert!(matches!(table.find(number), Ok(Entry::Handle(_))));
        assert!(matches!(far.read(), Err(ChannelError::ShouldWait)), "it is open");
        table.channel_write(number, 0, b"opened", &[]).unwrap();
        assert_eq!(far.read().unwrap().data, b"opened");
        drop(table);
        assert!(matches!(far.read(), Err(ChannelError::PeerClosed)));
    }

    #[test]
    fn an_end_whose_number_is_closed_while_it_is_opened_is_closed() {
        let (table, number, far) = arrived();
        let inner = table.clone();
        let visit = visits::at("table.opening", move || inner.close(number).unwrap());
        let refused = table.channel_write(number, 0, b"late", &[]).unwrap_err();
        drop(visit);
        assert_eq!(refused.status(), Status::BAD_HANDLE);
        assert!(matches!(far.read(), Err(ChannelError::PeerClosed)));
    }

    /// Were it taken at once, as a copy of the handle in use, it would have two owners.
    #[test]
    fn a_thread_that_takes_an_end_waits_until_another_has_opened_it() {
        let (table, number, far) = arrived();
        let (inner, (tell, told)) = (table.clone(), std::sync::mpsc::channel());
        let visit = visits::at("table.opening", move || {
            let taking = thread::spawn(move || inner.remove(number).unwrap());
            thread::sleep(Duration::from_millis(50));
            assert!(!taking.is_finished());
            tell.send(taking).unwrap();
        });
        let end = table.get_channel(number, Rights::READ);
        drop(visit);
        let handle = told.recv_timeout(LONG).unwrap().join().unwrap();
        if let Ok(end) = end {
            assert!(matches!(end.read(), Err(ChannelError::Closed)));
        }
        let owner = Channel::from_handle(handle).unwrap();
        owner.write(b"the only one").unwrap();
        assert_eq!(far.read().unwrap().data, b"the only one");
        drop(owner);
        assert!(matches!(far.read(), Err(ChannelError::PeerClosed)));
    }

    #[test]
    fn a_thread_that_panics_while_it_opens_an_end_leaves_it_to_others() {
        let (table, number, far) = arrived();
        let visit = visits::at("table.opening", || panic!("as told"));
        let open = || table.get_channel(number, Rights::READ);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).is_err());
        drop(visit);
        table.channel_write(number, 0, b"opened", &[]).unwrap();
        assert_eq!(far.read().unwrap().data, b"opened");
    }

    #[test]
    fn of_a_list_with_an_end_that_cannot_leave_all_stay() {
        let table = HandleTable::new();
        let (through, _other) = table.channel_create().unwrap();
        let (closed, _other) = table.channel_create().unwrap();
        let (open, _other) = table.channel_create().unwrap();
        let file = table.insert(std::fs::File::open("/").unwrap());
        table.get_channel(closed, Rights::READ).unwrap().close(); // not by its number
        let list = [file, open, closed];
        let refused = table.channel_try_write(through, 0, b"", &list).unwrap_err();
        assert_eq!(refused.status(), Status::BAD_HANDLE);
        assert!(list.iter().all(|number| table.contains(*number)));
        assert!(matches!(table.find(open), Ok(Entry::Handle(_))), "it had left, and was put back");
        let refused = table.channel_read(open, 0, &mut [], &mut []).unwrap_err();
        assert_eq!(refused.status(), Status::SHOULD_WAIT, "and is used again");
        table.channel_write(through, 0, b"", &list).unwrap_err();
        assert!(!list.iter().any(|number| table.contains(*number)));
    }
}
