//! The C library's allocator, told to keep little.

/// For small single-threaded programs that live long: large blocks go back to the kernel when they are freed,
/// and the heap grows and shrinks in small steps.
pub fn keep_little() {
    // SAFETY: sets numbers of the allocator; the program has one thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 4 * 1024);
    }
}

/// For daemons: blocks of buffers always go back to the kernel when they are freed, also when many of them have come and
/// gone (the allocator would keep ever larger ones), and few heaps share what is small.
pub fn give_back() {
    // SAFETY: sets numbers of the allocator; the program has one thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1024 * 1024);
    }
}

/// Gives unused pages of the heap back to the kernel.
pub fn trim() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}
