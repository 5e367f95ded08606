/* kvstore for C++17 and later: a thin layer over kvstore.h, all of it in this file.
 *
 * - Handles (store, batch, snapshot, scan, options, report) own what they stand for and can be moved, not copied.
 *   One that was moved from, or a store that was closed, is empty: using it throws KV_ERR_INVALID.
 * - Keys and values go in as kv::bytes: strings, string literals, and all that has data() and size() in bytes.
 *   They are copied before a call returns.
 * - Values come out as std::string, or from snapshots and scans as std::string_view into memory of the library:
 *   each function says how long that is valid.
 * - Errors are exceptions of type kv::error. What is no error is a result: an empty optional, a false.
 * - Destructors never throw. That of a store drops the errors of closing it: call close() to see them.
 * - Threads are as in kvstore.h: a batch, a scan and options are for one thread at a time, the rest for any number.
 */
#ifndef KVSTORE_HPP
#define KVSTORE_HPP

#if !defined(_MSVC_LANG) && __cplusplus < 201703L
#error "kvstore.hpp needs C++17; kvstore.h does with C++11"
#endif

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

/* There a structure and a function share a name, as stat() and struct stat do, which GCC remarks upon. */
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif
#include "kvstore.h"
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace kv {

/* --- Errors -------------------------------------------------------------------------------- */

/* The category of the codes of kv_status. They compare equal to a std::errc where there is one of that meaning. */
inline const std::error_category &category() noexcept {
    class kvstore_category final : public std::error_category {
        const char *name() const noexcept override { return "kvstore"; }
        std::string message(int code) const override { return kv_strerror(code); }
        std::error_condition default_error_condition(int code) const noexcept override {
            switch (code) {
            case KV_ERR_INVALID: return std::errc::invalid_argument;
            case KV_ERR_IO: return std::errc::io_error;
            case KV_ERR_NO_SPACE: return std::errc::no_space_on_device;
            case KV_ERR_NO_MEMORY: return std::errc::not_enough_memory;
            case KV_ERR_LOCKED:
            case KV_ERR_BUSY: return std::errc::device_or_resource_busy;
            case KV_ERR_EXISTS: return std::errc::file_exists;
            case KV_ERR_CANCELLED: return std::errc::operation_canceled;
            default: return {code, *this};
            }
        }
    };
    static const kvstore_category instance;
    return instance;
}

/* A call failed. code() compares with the values of kv_status: `error.code() == KV_ERR_LOCKED`. */
class error : public std::system_error {
public:
    error(int32_t status, const std::string &message)
        : std::system_error(status, category()), message_(message.empty() ? kv_strerror(status) : message) {}
    /* What exactly went wrong: which file, which offset, what the operating system said. */
    const char *what() const noexcept override { return message_.what(); }

private:
    std::runtime_error message_; /* a string whose copy cannot throw */
};

} // namespace kv

template <> struct std::is_error_code_enum<kv_status> : std::true_type {};

/* Here, and not in kv, because this is where the compiler looks for it. */
inline std::error_code make_error_code(kv_status status) noexcept {
    return {static_cast<int>(status), kv::category()};
}

namespace kv {

namespace detail {

/* Statuses that are no errors pass through. */
inline int32_t check(int32_t status) {
    if (status >= 0) return status;
    std::string message(kv_last_error(nullptr, 0), '\0');
    kv_last_error(message.data(), message.size() + 1);
    throw error(status, message);
}

template <auto Free> struct deleter {
    template <class T> void operator()(T *handle) const noexcept { Free(handle); }
};
template <class T, auto Free> using handle = std::unique_ptr<T, deleter<Free>>;

inline std::string_view view(const uint8_t *data, std::size_t size) noexcept {
    return {reinterpret_cast<const char *>(data), size};
}

/* Shared by a store and what was made from it, so that whichever is last closes the database. */
struct opened {
    kv_store *store = nullptr;
    opened() = default;
    opened(const opened &) = delete;
    opened &operator=(const opened &) = delete;
    ~opened() { kv_close(store); }
};

/* Frees what was made from a store first, and lets go of the store then. */
template <auto Free> struct part_deleter {
    std::shared_ptr<opened> whole;
    template <class T> void operator()(T *handle) const noexcept { Free(handle); }
};
template <class T, auto Free> using part = std::unique_ptr<T, part_deleter<Free>>;

} // namespace detail

/* --- Bytes going in ------------------------------------------------------------------------ */

/* Bytes of somebody else, for the time of a call. A `const char *` is a string up to its NUL. */
class bytes {
public:
    constexpr bytes() noexcept = default;
    constexpr bytes(const char *text) noexcept : bytes(std::string_view(text)) {}
    constexpr bytes(std::string_view text) noexcept : data_(text.data()), size_(text.size()) {}
    constexpr bytes(const void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /* std::string, std::vector<unsigned char>, std::span<std::byte>, std::array<char, 8> ... */
    template <class T, class Byte = std::remove_pointer_t<decltype(std::declval<const T &>().data())>,
              class = std::enable_if_t<sizeof(Byte) == 1 && std::is_trivially_copyable_v<Byte>>>
    constexpr bytes(const T &container) noexcept : data_(container.data()), size_(container.size()) {}

    const uint8_t *data() const noexcept { return static_cast<const uint8_t *>(data_); }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    const void *data_ = nullptr;
    std::size_t size_ = 0;
};

/* --- Progress of long work ----------------------------------------------------------------- */

/* Called with the bytes done and to do, in the thread that asked for the work; returns whether to go on. false ends the
 * work with KV_ERR_CANCELLED. An exception ends it too, and comes out of the call. An empty function is none. */
using progress = std::function<bool(uint64_t done, uint64_t total)>;

namespace detail {

/* Keeps exceptions from passing through C. */
class reporter {
public:
    explicit reporter(const progress &call) noexcept : call_(call) {}
    kv_progress function() const noexcept { return call_ ? &run : nullptr; }
    int32_t check(int32_t status) const {
        if (thrown_) std::rethrow_exception(thrown_);
        return detail::check(status);
    }

private:
    static int32_t run(void *context, uint64_t done, uint64_t total) noexcept {
        auto *self = static_cast<reporter *>(context);
        try {
            return self->call_(done, total) ? 0 : 1;
        } catch (...) {
            self->thrown_ = std::current_exception();
            return 1;
        }
    }
    const progress &call_;
    std::exception_ptr thrown_;
};

} // namespace detail

/* --- Options ------------------------------------------------------------------------------- */

/* What can be chosen when a database is opened; see kv_option for what each means. */
class options {
public:
    options() : handle_(kv_options_new()) {
        if (!handle_) throw error(KV_ERR_NO_MEMORY, {});
    }
    options &set(kv_option option, uint64_t value) {
        detail::check(kv_options_set(handle_.get(), option, value));
        return *this;
    }
    options &compact_threshold(uint64_t size) { return set(KV_OPT_COMPACT_THRESHOLD, size); }
    options &garbage_ratio(unsigned percent) { return set(KV_OPT_GARBAGE_RATIO, percent); }
    options &segment_size(uint64_t size) { return set(KV_OPT_SEGMENT_SIZE, size); }
    options &sync(kv_sync_level level) { return set(KV_OPT_SYNC, level); }
    options &sync_interval(std::chrono::milliseconds interval) {
        return set(KV_OPT_SYNC_INTERVAL_MS, static_cast<uint64_t>(interval.count()));
    }
    options &io(kv_io_path path) { return set(KV_OPT_IO, path); }
    options &background(bool on) { return set(KV_OPT_BACKGROUND, on); }
    options &create_if_missing(bool on) { return set(KV_OPT_CREATE_IF_MISSING, on); }
    options &error_if_exists(bool on) { return set(KV_OPT_ERROR_IF_EXISTS, on); }
    options &read_only(bool on) { return set(KV_OPT_READ_ONLY, on); }
    options &verify_reads(bool on) { return set(KV_OPT_VERIFY_READS, on); }

    const kv_options *native() const noexcept { return handle_.get(); }

private:
    detail::handle<kv_options, kv_options_free> handle_;
};

/* --- Batches ------------------------------------------------------------------------------- */

/* Changes, and conditions on them, that are written by store::write() all at once or not at all. */
class batch {
public:
    batch() {
        kv_batch *made;
        detail::check(kv_batch_new(&made));
        handle_.reset(made);
    }
    batch &set(bytes key, bytes value) {
        detail::check(kv_batch_set(native(), key.data(), key.size(), value.data(), value.size()));
        return *this;
    }
    batch &erase(bytes key) {
        detail::check(kv_batch_del(native(), key.data(), key.size()));
        return *this;
    }
    /* The batch is written only if `key` has the value `expected`. */
    batch &require(bytes key, bytes expected) {
        detail::check(kv_batch_require(native(), key.data(), key.size(), expected.data(), expected.size()));
        return *this;
    }
    /* The batch is written only if there is no `key`. */
    batch &require_absent(bytes key) {
        detail::check(kv_batch_require_absent(native(), key.data(), key.size()));
        return *this;
    }
    void clear() { detail::check(kv_batch_clear(native())); }
    /* The number of changes. */
    std::size_t size() const noexcept { return kv_batch_len(native()); }
    bool empty() const noexcept { return size() == 0; }

    kv_batch *native() const noexcept { return handle_.get(); }

private:
    detail::handle<kv_batch, kv_batch_free> handle_;
};

/* --- Iteration ----------------------------------------------------------------------------- */

/* A key and its value, valid until the next step of the scan that they come from. */
struct item {
    std::string_view key;
    std::string_view value; /* empty in a scan of keys only */
};

/* The keys and values of a store or snapshot as they were when the scan was made, to be gone through once:
 *
 *     for (auto [key, value] : db.scan().prefix("user:").sorted()) ...
 *
 * It keeps the database open: store::close() is KV_ERR_BUSY while it lives. */
class scan {
public:
    [[nodiscard]] scan keys_only() && { return with(kv_iter_keys_only(native())); }
    /* Ascending by the bytes of the keys, which are gathered and sorted at the first step. */
    [[nodiscard]] scan sorted() && { return with(kv_iter_sort(native())); }
    [[nodiscard]] scan prefix(bytes text) && { return with(kv_iter_prefix(native(), text.data(), text.size())); }
    /* start <= key < end; an empty end is no end. */
    [[nodiscard]] scan range(bytes start, bytes end) && {
        return with(kv_iter_range(native(), start.data(), start.size(), end.data(), end.size()));
    }

    /* The next item, or nothing at the end. After an error every further step throws that error. */
    std::optional<item> next() {
        const uint8_t *key, *value;
        std::size_t key_len, value_len;
        if (detail::check(kv_iter_next(native(), &key, &key_len, &value, &value_len)) == KV_DONE) return std::nullopt;
        return item{detail::view(key, key_len), detail::view(value, value_len)};
    }

    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = item;
        using difference_type = std::ptrdiff_t;
        using pointer = const item *;
        using reference = const item &;

        iterator() = default;
        explicit iterator(scan &source) : source_(&source) { ++*this; }
        reference operator*() const noexcept { return item_; }
        pointer operator->() const noexcept { return &item_; }
        iterator &operator++() {
            if (auto next = source_->next()) {
                item_ = *next;
            } else {
                source_ = nullptr;
            }
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.source_ == b.source_; }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept { return !(a == b); }

    private:
        scan *source_ = nullptr;
        item item_;
    };
    iterator begin() { return iterator(*this); }
    iterator end() const noexcept { return {}; }

    kv_iter *native() const noexcept { return handle_.get(); }

private:
    friend class store;
    friend class snapshot;
    scan(std::shared_ptr<detail::opened> whole, kv_iter *made) noexcept : handle_(made, {std::move(whole)}) {}
    /* By value, so that a scan set up in the head of a range-for lives as long as the loop. */
    scan with(int32_t status) {
        detail::check(status);
        return std::move(*this);
    }
    detail::part<kv_iter, kv_iter_free> handle_;
};

/* --- Snapshots ----------------------------------------------------------------------------- */

/* The store as it was when store::snapshot() was called. It keeps the database open, as a scan does. */
class snapshot {
public:
    /* The value where it lies in the log, not copied. Valid until the snapshot is destroyed; moving keeps it. */
    std::optional<std::string_view> get(bytes key) const {
        const uint8_t *value;
        std::size_t size;
        int32_t status = detail::check(kv_snapshot_get(native(), key.data(), key.size(), &value, &size));
        if (status == KV_NOT_FOUND) return std::nullopt;
        return detail::view(value, size);
    }
    bool contains(bytes key) const { return get(key).has_value(); }
    /* May outlive the snapshot. */
    kv::scan scan() const {
        kv_iter *made;
        detail::check(kv_snapshot_iter(native(), &made));
        return {handle_.get_deleter().whole, made};
    }

    kv_snapshot *native() const noexcept { return handle_.get(); }

private:
    friend class store;
    snapshot(std::shared_ptr<detail::opened> whole, kv_snapshot *made) noexcept : handle_(made, {std::move(whole)}) {}
    detail::part<kv_snapshot, kv_snapshot_free> handle_;
};

/* --- Reports ------------------------------------------------------------------------------- */

/* Something that verifying, salvaging or importing found. Valid as long as the report. */
struct problem {
    std::string_view file;
    uint64_t offset;
    std::string_view what;
};

class report {
public:
    /* The number of problems. */
    std::size_t size() const noexcept { return kv_report_len(handle_.get()); }
    bool empty() const noexcept { return size() == 0; }
    problem operator[](std::size_t index) const {
        const char *file, *what;
        uint64_t offset;
        if (detail::check(kv_report_problem(handle_.get(), index, &file, &offset, &what)) == KV_NOT_FOUND) {
            throw std::out_of_range("no such problem in the report");
        }
        return {file, offset, what};
    }
    std::vector<problem> problems() const {
        std::vector<problem> all;
        for (std::size_t i = 0; i < size(); i++) all.push_back((*this)[i]);
        return all;
    }
    struct kv_report_totals totals() const {
        struct kv_report_totals filled;
        detail::check(kv_report_totals(handle_.get(), &filled, sizeof filled));
        return filled;
    }

    kv_report *native() const noexcept { return handle_.get(); }

private:
    friend class store;
    friend report verify(const std::string &, const progress &);
    friend report salvage(const std::string &, const std::string &, const progress &);
    /* Runs `work`, which gives a report. To find damage is what verifying is for, and no error. */
    template <class Work> static report of(const progress &call, bool verifying, Work work) {
        detail::reporter guard(call);
        kv_report *made = nullptr;
        const int32_t status = work(guard.function(), &guard, &made);
        report result(made);
        guard.check(verifying && made && status == KV_ERR_CORRUPT ? KV_OK : status);
        return result;
    }
    explicit report(kv_report *made) noexcept : handle_(made) {}
    detail::handle<kv_report, kv_report_free> handle_;
};

/* --- The store ----------------------------------------------------------------------------- */

/* An open database. */
class store {
public:
    /* Opens the database in the directory `path`; creates it if there is none. */
    explicit store(const std::string &path) : store(path, nullptr) {}
    store(const std::string &path, const options &chosen) : store(path, chosen.native()) {}
    store(store &&) noexcept = default;
    store &operator=(store &&) noexcept = default;

    /* Syncs and closes. Throws KV_ERR_BUSY, and stays open, while there are snapshots or scans of it. After any
     * other error it is closed. Closing twice is fine.
     *
     * A store that is destroyed is closed without a word, and if there are snapshots or scans of it, by the last. */
    void close() {
        if (!opened_) return;
        int32_t status = kv_close(opened_->store);
        if (status != KV_ERR_BUSY) {
            opened_->store = nullptr;
            opened_.reset();
        }
        detail::check(status);
    }

    void set(bytes key, bytes value) {
        detail::check(kv_set(native(), key.data(), key.size(), value.data(), value.size()));
    }
    std::optional<std::string> get(bytes key) const {
        std::string value;
        return get(key, value) ? std::optional(std::move(value)) : std::nullopt;
    }
    /* Into a string whose memory is used again. Returns whether there is a value; if not, the string is empty. */
    bool get(bytes key, std::string &value) const {
        char small[512];
        std::size_t size;
        int32_t status = read(key, small, sizeof small, size);
        if (status == KV_OK) {
            value.assign(small, size);
            return true;
        }
        while (status == KV_ERR_BUFFER_TOO_SMALL) {
            value.resize(size);
            status = read(key, value.data(), value.size(), size);
        }
        value.resize(status == KV_OK ? size : 0);
        return detail::check(status) == KV_OK;
    }
    /* Into memory of the caller's; returns the length of the value. If that is over `cap` nothing was copied. */
    std::optional<std::size_t> get_into(bytes key, void *buf, std::size_t cap) const {
        std::size_t size;
        int32_t status = read(key, buf, cap, size);
        if (status != KV_ERR_BUFFER_TOO_SMALL && detail::check(status) == KV_NOT_FOUND) return std::nullopt;
        return size;
    }
    /* Values of many keys at one point in time, in the order of the keys. */
    template <class Keys = std::initializer_list<bytes>>
    std::vector<std::optional<std::string>> get_many(const Keys &keys) const {
        std::vector<const uint8_t *> data;
        std::vector<std::size_t> sizes;
        for (const bytes key : keys) {
            data.push_back(key.data());
            sizes.push_back(key.size());
        }
        std::vector<const uint8_t *> values(data.size());
        std::vector<std::size_t> value_sizes(data.size());
        uint8_t *buf;
        detail::check(kv_get_many(native(), data.size(), data.data(), sizes.data(), values.data(), value_sizes.data(),
                                  &buf));
        detail::handle<uint8_t, kv_free_buf> owner(buf);
        std::vector<std::optional<std::string>> found(data.size());
        for (std::size_t i = 0; i < values.size(); i++) {
            if (values[i]) found[i].emplace(detail::view(values[i], value_sizes[i]));
        }
        return found;
    }
    bool contains(bytes key) const { return detail::check(kv_exists(native(), key.data(), key.size())) == KV_OK; }
    /* Returns whether it was there. */
    bool erase(bytes key) { return detail::check(kv_del(native(), key.data(), key.size())) == KV_OK; }

    /* Writes a batch whole. Throws KV_CONFLICT, and changes nothing, if a condition of it does not hold. */
    void write(const batch &changes) {
        if (!try_write(changes)) throw error(KV_CONFLICT, {});
    }
    /* As write(), but a condition that does not hold is the result false. */
    [[nodiscard]] bool try_write(const batch &changes) {
        return detail::check(kv_write(native(), changes.native())) == KV_OK;
    }
    /* Returns whether it was written. */
    [[nodiscard]] bool set_if_absent(bytes key, bytes value) {
        return detail::check(kv_set_if_absent(native(), key.data(), key.size(), value.data(), value.size())) == KV_OK;
    }
    /* Returns whether `key` had the value `expected` and now has `value`. */
    [[nodiscard]] bool replace_if(bytes key, bytes expected, bytes value) {
        return detail::check(kv_replace_if(native(), key.data(), key.size(), expected.data(), expected.size(),
                                           value.data(), value.size())) == KV_OK;
    }

    kv::snapshot snapshot() const {
        kv_snapshot *made;
        detail::check(kv_snapshot_new(native(), &made));
        return {opened_, made};
    }
    kv::scan scan() const {
        kv_iter *made;
        detail::check(kv_iter_new(native(), &made));
        return {opened_, made};
    }

    /* Makes everything acknowledged so far survive power loss. */
    void sync() { detail::check(kv_sync(native())); }
    void compact(const progress &call = {}) {
        detail::reporter guard(call);
        guard.check(kv_compact_with(native(), guard.function(), &guard));
    }
    /* Does some of the work that is waiting; returns whether there is more. */
    bool maintain(uint64_t budget_bytes) { return detail::check(kv_maintain(native(), budget_bytes)) == KV_OK; }
    /* Makes a database of its own of what the store holds now, in the new directory `dir`. Files that the older
     * checkpoint `base` has too are shared with it. */
    void checkpoint(const std::string &dir, const std::string &base = {}, const progress &call = {}) {
        detail::reporter guard(call);
        const char *from = base.empty() ? nullptr : base.c_str();
        guard.check(kv_checkpoint_with(native(), dir.c_str(), from, guard.function(), &guard));
    }

    /* Reads everything and checks it, beside reads and writes. An empty report means that nothing is damaged. */
    report verify(const progress &call = {}) const {
        return report::of(call, true, [this](kv_progress function, void *context, kv_report **made) {
            return kv_verify_store_with(native(), function, context, made);
        });
    }
    /* Does again what a log of the reference engine says was done. A torn last record is skipped, and reported. */
    report import_log(const std::string &file, const progress &call = {}) {
        return report::of(call, false, [&](kv_progress function, void *context, kv_report **made) {
            return kv_import_with(native(), file.c_str(), function, context, made);
        });
    }

    struct kv_stats stats() const {
        struct kv_stats filled;
        detail::check(kv_stats(native(), &filled, sizeof filled));
        return filled;
    }
    /* What opening the database found and did. */
    struct kv_recovery_info recovery_info() const {
        struct kv_recovery_info filled;
        detail::check(kv_recovery_info(native(), &filled, sizeof filled));
        return filled;
    }

    kv_store *native() const noexcept { return opened_ ? opened_->store : nullptr; }

private:
    store(const std::string &path, const kv_options *options) : opened_(std::make_shared<detail::opened>()) {
        detail::check(kv_open(path.c_str(), options, &opened_->store));
    }
    int32_t read(bytes key, void *buf, std::size_t cap, std::size_t &size) const noexcept {
        return kv_get_into(native(), key.data(), key.size(), static_cast<uint8_t *>(buf), cap, &size);
    }
    std::shared_ptr<detail::opened> opened_;
};

/* --- Databases that are not open ----------------------------------------------------------- */

/* Reads and checks a database that nobody has open for writing. An empty report means that nothing is damaged. */
inline report verify(const std::string &path, const progress &call = {}) {
    return report::of(call, true, [&](kv_progress function, void *context, kv_report **made) {
        return kv_verify_with(path.c_str(), function, context, made);
    });
}

/* Puts what can be read of a damaged database into a new one. The report says what was lost. */
inline report salvage(const std::string &path, const std::string &new_path, const progress &call = {}) {
    return report::of(call, false, [&](kv_progress function, void *context, kv_report **made) {
        return kv_salvage_with(path.c_str(), new_path.c_str(), function, context, made);
    });
}

} // namespace kv

#endif /* KVSTORE_HPP */
