//! The floor: a server that sends each packet back as it came, by batches.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

/// Packets of a batch: as many as the server that is measured takes.
const BATCH: usize = 32;

/// Longest packet.
const PACKET: usize = 1280 + 64;

/// Echoes until an error.
pub fn echo(listen: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    let mut receive = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut send = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut packets = [[0_u8; PACKET]; BATCH];
    loop {
        let mut lengths = [0; BATCH];
        let mut clients = [None; BATCH];
        let mut count = 0;
        {
            let mut slices = packets.each_mut().map(|packet| [IoSliceMut::new(packet)]);
            let fd = socket.as_raw_fd();
            let flags = MsgFlags::MSG_WAITFORONE;
            for message in recvmmsg(fd, &mut receive, slices.iter_mut(), flags, None)? {
                lengths[count] = message.bytes;
                clients[count] = message.address;
                count += 1;
            }
        }
        let slices: [_; BATCH] =
            std::array::from_fn(|place| [IoSlice::new(&packets[place][..lengths[place]])]);
        let flags = MsgFlags::empty();
        sendmmsg(socket.as_raw_fd(), &mut send, &slices[..count], &clients[..count], [], flags)?;
    }
}
