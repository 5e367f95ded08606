//! Sorting by hashes. They are keyed and so spread evenly: distributed to as many buckets by their top bits as there are
//! items, few are left to be compared in each.

/// Fewer items than this many bits can count are sorted without buckets; and more buckets than that would only miss the
/// caches.
const LEAST_BITS: u32 = 6;
const MOST_BITS: u32 = 16;

/// Memory to sort in, which may serve many times.
pub(crate) struct Buckets<T> {
    ends: Vec<u32>,
    copy: Vec<T>,
}

impl<T: Copy> Buckets<T> {
    pub(crate) fn new() -> Buckets<T> {
        Buckets { ends: Vec::new(), copy: Vec::new() }
    }

    /// Sorts by `order`, in which the hash comes first. All hashes are expected to have their first `common` bits in
    /// common. Without the memory for buckets the items are all compared.
    pub(crate) fn sort<K: Ord>(
        &mut self,
        items: &mut [T],
        common: u32,
        hash: impl Fn(&T) -> u64,
        order: impl Fn(&T) -> K,
    ) {
        let bits = items.len().checked_ilog2().unwrap_or(0).min(MOST_BITS);
        let Buckets { ends, copy } = self;
        ends.clear();
        copy.clear();
        let no_memory = ends.try_reserve_exact(1 << bits).is_err() || copy.try_reserve_exact(items.len()).is_err();
        if bits < LEAST_BITS || no_memory || u32::try_from(items.len()).is_err() {
            return items.sort_unstable_by_key(order);
        }
        ends.resize(1 << bits, 0);
        copy.extend_from_slice(items);
        let bucket_of = |item: &T| (hash(item) << common >> (64 - bits)) as usize;
        copy.iter().for_each(|item| ends[bucket_of(item)] += 1);
        let mut end = 0;
        for count in &mut *ends {
            end += *count;
            *count = end - *count;
        }
        for item in &*copy {
            // What is the start of the bucket at first is its end when all its items are in place.
            let place = &mut ends[bucket_of(item)];
            items[*place as usize] = *item;
            *place += 1;
        }
        let mut start = 0;
        for &end in &*ends {
            let end = end as usize;
            if end > start + 1 {
                items[start..end].sort_unstable_by_key(&order);
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_items_are_sorted() {
        let mut buckets = Buckets::new();
        for (count, common, spread) in
            [(0, 0, 1), (1, 0, 1), (100, 0, 1 << 20), (5000, 12, 1), (70_000, 8, 1), (500, 8, 1 << 50)]
        {
            let random =
                |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mut items: Vec<(u64, u64)> =
                (0..count).map(|i| ((random(i) >> common) / spread, random(i + 1))).collect();
            let mut expected = items.clone();
            expected.sort_unstable();
            buckets.sort(&mut items, common, |item| item.0, |item| *item);
            assert_eq!(items, expected, "{count} items");
        }
    }
}
