//! The bindings panic where a library or one of its functions is not there; here that becomes an error like any other.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

use crate::device::GpuError;

thread_local! {
    /// Whether a silent hook stands for work of this thread already.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Does the work; a panic in it is told as `library` being too old or broken. The panic itself prints nothing.
pub(crate) fn caught<T>(library: &'static str, work: impl FnOnce() -> Result<T, GpuError>) -> Result<T, GpuError> {
    if INSIDE.get() {
        return told(library, catch_unwind(AssertUnwindSafe(work)));
    }
    // The hook is the process's: one at a time, so that nobody puts a silent one back.
    static HOOK: Mutex<()> = Mutex::new(());
    let one = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let before = take_hook();
    set_hook(Box::new(|_| {}));
    INSIDE.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(false);
    set_hook(before);
    drop(one);
    told(library, done)
}

fn told<T>(library: &'static str, done: std::thread::Result<Result<T, GpuError>>) -> Result<T, GpuError> {
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let said = text.and_then(|text| text.lines().next()).unwrap_or("it cannot be used");
        Err(GpuError::Missing { library, hint: format!("{said}; install a newer one") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_all_else_passes() {
        let error = caught::<()>("driver", || panic!("Missing symbol {}: gone", "cuNew")).unwrap_err().to_string();
        assert_eq!(error, "no driver: Missing symbol cuNew: gone; install a newer one");
        assert_eq!(caught("driver", || Ok(7)).unwrap(), 7);
        let inner = caught("driver", || Ok(caught::<()>("compiler", || panic!("inside")).unwrap_err())).unwrap();
        assert_eq!(inner.to_string(), "no compiler: inside; install a newer one");
        let passed = caught::<()>("driver", || Err(GpuError::NoKernel("x".to_owned()))).unwrap_err();
        assert!(matches!(passed, GpuError::NoKernel(_)));
    }
}
