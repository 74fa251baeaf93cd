//! A disk that is only looked at. Whatever would change it is answered as done, and not done: for tools that run
//! a daemon's own recovery over a directory that must stay as it is.
//!
//! It does not remember what it was told to change, so it is for code that does not read back what it wrote.

use std::io::{self, IoSlice};

use crate::{Disk, DiskFile, Entry, Open, Space};

/// See the module.
#[derive(Clone, Debug)]
pub struct ReadOnly<D>(pub D);

/// A file of it.
#[derive(Debug)]
pub struct ReadOnlyFile<F>(F);

impl<D: Disk> Disk for ReadOnly<D> {
    type File = ReadOnlyFile<D::File>;

    fn open(&self, path: &str, how: Open) -> io::Result<Self::File> {
        match how {
            Open::Existing => self.0.open(path, how).map(ReadOnlyFile),
            Open::New | Open::OrNew => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    fn create_dir_all(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.0.list(dir)
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }

    /// The lock is taken: who else changes the directory would make what is read worth nothing.
    fn lock(&self) -> io::Result<()> {
        self.0.lock()
    }
}

impl<F: DiskFile> DiskFile for ReadOnlyFile<F> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn read_cached_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        self.0.read_cached_at(buf, offset)
    }

    fn write_at(&self, _bufs: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
