//! What is set on a socket and asked of it beside its bytes.

use super::Liveness;
use std::io;
use std::os::fd::RawFd;

/// Makes a connected socket notice a peer that is gone.
///
/// # Errors
/// The kernel refuses, or the socket is not connected any more.
pub(super) fn watch(fd: RawFd, liveness: Liveness) -> io::Result<()> {
    let Liveness { idle_s, interval_s, count, unacknowledged_ms } = liveness;
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    let options = [
        (libc::TCP_KEEPIDLE, idle_s),
        (libc::TCP_KEEPINTVL, interval_s),
        (libc::TCP_KEEPCNT, count),
        (libc::TCP_USER_TIMEOUT, unacknowledged_ms),
    ];
    options
        .into_iter()
        .filter(|(_, value)| *value > 0)
        .try_for_each(|(option, value)| set(fd, libc::IPPROTO_TCP, option, value.min(i32::MAX as u32) as libc::c_int))
}

fn set(fd: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads one integer, which lives through the call.
    match unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many of the bytes sent on a socket its peer has acknowledged; `None` where the kernel does not say.
///
/// To be asked once the peer's end (FIN) has come: an end acknowledges what its sender has, and nothing that comes after it
/// is ever acknowledged. A reset tells nothing: what it acknowledges is not counted.
pub(super) fn acknowledged(fd: RawFd) -> Option<u64> {
    // SAFETY: all-zero is a valid value.
    let mut info: Info = unsafe { std::mem::zeroed() };
    let mut size = size_of::<Info>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than that many bytes of a live value, in which any bytes are valid.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut size) };
    // The SYN counts as one.
    (result == 0 && size as usize >= size_of::<Info>()).then(|| info.bytes_acked.saturating_sub(1))
}

/// The kernel's `struct tcp_info` up to the bytes acknowledged (Linux 4.1).
#[repr(C)]
struct Info {
    bytes: [u8; 8],
    words: [u32; 24],
    pacing: [u64; 2],
    bytes_acked: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn an_end_says_what_its_sender_had_got() {
        let (mut client, mut server) = pair();
        client.write_all(b"first").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        assert_eq!(acknowledged(client.as_raw_fd()), Some(5));
        // Closed while idle: what is sent then is not acknowledged, and its end is an end although a reset follows it.
        drop(server);
        client.write_all(b"second").unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(acknowledged(client.as_raw_fd()), Some(5));

        let (mut client, mut server) = pair();
        client.write_all(b"first").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(acknowledged(client.as_raw_fd()), Some(5), "it had the request, and closed");
    }

    #[test]
    fn a_socket_is_told_when_to_give_up() {
        let (client, _server) = pair();
        let fd = client.as_raw_fd();
        watch(fd, Liveness { idle_s: 7, interval_s: 8, count: 2, unacknowledged_ms: 9_000 }).unwrap();
        let get = |level, option| {
            let (mut value, mut size) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
            // SAFETY: the kernel writes one integer.
            assert_eq!(unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut size) }, 0);
            value
        };
        let tcp = [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT, libc::TCP_USER_TIMEOUT];
        assert_eq!(tcp.map(|option| get(libc::IPPROTO_TCP, option)), [7, 8, 2, 9_000]);
        assert_eq!(get(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
    }
}
