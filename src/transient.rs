//! Much memory for a short time.

/// As glibc sets itself up, in bytes: what is larger than this it always maps by itself (mallopt(3), `M_MMAP_THRESHOLD`).
const ALWAYS_MAPPED: usize = 33 << 20;
/// Worth it for the records of so many bytes of log.
const WORTH_IT: u64 = 1 << 20;

/// Has the items that will be put into an empty `Vec`, from so many bytes of log, in memory that goes back to the system with
/// them. Were it to grow from little on, glibc would keep up to 32 MiB of it for the process's next request. What is not
/// used of it is mere addresses; without those, it grows as it is filled.
pub(crate) fn reserve_apart<T>(items: &mut Vec<T>, log_bytes: u64) {
    if items.capacity() == 0 && log_bytes >= WORTH_IT {
        let _ = items.try_reserve_exact(ALWAYS_MAPPED / size_of::<T>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_of_much_log_are_kept_apart() {
        let mut few = Vec::<u64>::new();
        reserve_apart(&mut few, WORTH_IT - 1);
        assert_eq!(few.capacity(), 0);
        let mut many = Vec::<[u64; 5]>::new();
        reserve_apart(&mut many, WORTH_IT);
        assert!(many.capacity() * size_of::<[u64; 5]>() > 32 << 20);
        let mut begun = vec![1u8];
        reserve_apart(&mut begun, u64::MAX);
        assert!(begun.capacity() < 100);
    }
}
