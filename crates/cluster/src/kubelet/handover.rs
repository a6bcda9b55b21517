//! Hands an open file from the kubelet to a shim, over the socket between them.
//!
//! A shim's own standard input is that socket, so what its command is to read
//! from cannot be inherited. Rejected: a descriptor without close-on-exec, which
//! every other child that starts in the same moment would inherit too, and which
//! would keep a pipe open that should end.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// A descriptor travels only with data.
const WITH: &[u8] = b"F";

pub(super) fn send(socket: impl AsFd, file: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(socket, &[IoSlice::new(WITH)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

pub(super) fn receive(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0; WITH.len()];
    let mut data = [IoSliceMut::new(&mut word)];
    recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    files.last().ok_or_else(|| io::Error::other("the kubelet handed over nothing"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn a_file_arrives_open() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&ours, writer.as_fd()).unwrap();
        drop(writer);
        let mut arrived = std::fs::File::from(receive(&theirs).unwrap());
        arrived.write_all(b"hello").unwrap();
        drop(arrived);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        drop(ours);
        assert!(receive(&theirs).is_err());
    }
}
