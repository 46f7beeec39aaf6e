//! What an ELF file says of itself: for which machine it is, and who is to load it.

use std::fs::File;
use std::path::Path;

use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef};

/// An executable or a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its machine, bits and byte order. A process can only load images that have the same.
    pub(crate) machine: Machine,
    /// The dynamic linker that it names; `None`: it is loaded as it is.
    pub(crate) interpreter: Option<String>,
}

/// What a processor has to understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    number: u16,
    is_64: bool,
    is_big_endian: bool,
}

impl Image {
    /// Of the file at `path`; `None` if it cannot be read or is not ELF.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let cache = ReadCache::new(File::open(path).ok()?);
        match FileKind::parse(&cache).ok()? {
            FileKind::Elf32 => parse::<FileHeader32<Endianness>, _>(&cache),
            FileKind::Elf64 => parse::<FileHeader64<Endianness>, _>(&cache),
            _ => None,
        }
    }
}

fn parse<'data, Header, Data>(data: Data) -> Option<Image>
where
    Header: FileHeader<Endian = Endianness>,
    Data: ReadRef<'data>,
{
    let header = Header::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let machine = Machine {
        number: header.e_machine(endian).0,
        is_64: header.is_class_64(),
        is_big_endian: header.is_big_endian(),
    };
    let segments = header.program_headers(endian, data).ok()?;
    let interpreter = segments.iter().find_map(|segment| segment.interpreter(endian, data).ok().flatten());
    let interpreter = interpreter.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Some(Image { machine, interpreter })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_image_is_read() {
        let own = Image::read(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(own.machine.is_64, cfg!(target_pointer_width = "64"));
        assert_eq!(own.machine.is_big_endian, cfg!(target_endian = "big"));
        assert_eq!(own.interpreter.is_none(), cfg!(target_feature = "crt-static"));
    }

    #[test]
    fn other_files_have_no_image() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01\x01\0\0\0\0\0"] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(Image::read(file.path()), None, "{text:?}");
        }
        assert_eq!(Image::read(Path::new("/nonexistent")), None);
    }
}
