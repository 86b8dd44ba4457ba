//! Readers of other crates that panic on damaged files: arrow-ipc trusts the lengths that a file states,
//! tokenizers that a decoder can be read. What they panic
//! with becomes an error, and nothing of it is printed.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The value of `read`, or none where it panics. What `read` holds must not be used after that.
pub(crate) fn unless_panics<T>(read: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let other = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                other(info);
            }
        }));
    });
    GUARDED.set(true);
    let value = panic::catch_unwind(AssertUnwindSafe(read)).ok();
    GUARDED.set(false);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_the_next_call_is_as_before() {
        assert_eq!(unless_panics(|| 5), Some(5));
        assert_eq!(unless_panics(|| -> u8 { panic!("damaged") }), None);
        assert_eq!(unless_panics(|| 6), Some(6));
        assert!(!GUARDED.get());
    }
}
