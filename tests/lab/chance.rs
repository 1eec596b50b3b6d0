//! All chance of a history from its seed, so that it can be run again as it was.
//!
//! The order of a `HashMap` and which branch `tokio::select!` looks at first come from the operating system, once for
//! each thread, and nothing else can be told to take them from elsewhere. So each history has a thread of its own, and
//! where the C library would ask the system for chance, that thread is answered by its seed.

use std::{cell::Cell, thread};

use fastrand::Rng;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What comes of `work` on a thread of which all chance comes from `seed`; an error if it panicked.
pub fn seeded<T: Send>(seed: u64, work: impl FnOnce() -> T + Send) -> thread::Result<T> {
    let work = || {
        SEED.set(Some(seed));
        fastrand::seed(seed);
        work()
    };
    thread::scope(|scope| scope.spawn(work).join())
}

/// In the place of the C library's.
///
/// # Safety
///
/// As of that: `buffer` must have room for `length` bytes.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    let Some(seed) = SEED.get() else {
        // SAFETY: what was passed in goes on as it is.
        let read = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return read as libc::ssize_t;
    };
    let mut rng = Rng::with_seed(seed);
    SEED.set(Some(rng.u64(..)));
    // SAFETY: whoever calls has room for so many bytes, and nobody else looks at them meanwhile.
    let bytes = unsafe {
        buffer.write_bytes(0, length);
        std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)
    };
    rng.fill(bytes);
    length as libc::ssize_t
}
