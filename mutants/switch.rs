
/// Which of the changes that `ci/mutants` put into this crate is on.
#[doc(hidden)]
pub mod mutation {
    use core::ffi::{c_char, c_int, c_void};
    use core::ptr::null_mut;
    use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering::Relaxed};

    // std's functions for these allocate, and tests count allocations.
    unsafe extern "C" {
        fn getenv(name: *const c_char) -> *const c_char;
        fn atoi(text: *const c_char) -> c_int;
        fn open(path: *const c_char, flags: c_int, ...) -> c_int;
        fn close(descriptor: c_int) -> c_int;
        fn lseek(descriptor: c_int, offset: i64, whence: c_int) -> i64;
        fn mmap(at: *mut c_void, size: usize, protection: c_int, flags: c_int, file: c_int, offset: i64) -> *mut c_void;
    }
    const O_RDWR: c_int = 2;
    const O_CLOEXEC: c_int = 0o2000000;
    const SEEK_END: c_int = 2;
    const PROT_READ_WRITE: c_int = 1 | 2;
    const MAP_SHARED: c_int = 1;

    const UNKNOWN: u32 = u32::MAX;
    const NONE: u32 = u32::MAX - 1;
    /// The number of the change that is on, of the environment's `MUTANT`.
    static CHOSEN: AtomicU32 = AtomicU32::new(UNKNOWN);
    /// A byte for each change: 1 if it was asked about. The file that the environment's `MUTANTS_ASKED` names.
    static ASKED: AtomicPtr<u8> = AtomicPtr::new(null_mut());

    /// Whether this change is on. Never while the compiler evaluates a constant.
    pub const fn is_on(change: u32) -> bool {
        core::intrinsics::const_eval_select((change,), is_on_in_constants, is_on_now)
    }

    const fn is_on_in_constants(_: u32) -> bool {
        false
    }

    fn is_on_now(change: u32) -> bool {
        let mut chosen = CHOSEN.load(Relaxed);
        if chosen == UNKNOWN {
            chosen = choose();
        }
        let asked = ASKED.load(Relaxed);
        if !asked.is_null() {
            // SAFETY: the file has a byte for each change: mutants/run.py made it so.
            unsafe { AtomicU8::from_ptr(asked.add(change as usize)) }.store(1, Relaxed);
        }
        chosen == change
    }

    #[cold]
    fn choose() -> u32 {
        // SAFETY: the names are C strings; nothing here changes the environment meanwhile.
        let (chosen, file) = unsafe {
            let chosen = getenv(c"MUTANT".as_ptr());
            (if chosen.is_null() { NONE } else { atoi(chosen) as u32 }, getenv(c"MUTANTS_ASKED".as_ptr()))
        };
        if !file.is_null() {
            // SAFETY: a C string of the environment; the mapping is as long as the file, and stays.
            let asked = unsafe {
                let descriptor = open(file, O_RDWR | O_CLOEXEC);
                let size = lseek(descriptor, 0, SEEK_END);
                assert!(size > 0, "MUTANTS_ASKED names no file with a byte for each change");
                let asked = mmap(null_mut(), size as usize, PROT_READ_WRITE, MAP_SHARED, descriptor, 0);
                close(descriptor);
                asked
            };
            assert!(asked as isize != -1, "the file that MUTANTS_ASKED names cannot be mapped");
            ASKED.store(asked.cast(), Relaxed);
        }
        CHOSEN.store(chosen, Relaxed);
        chosen
    }
}
