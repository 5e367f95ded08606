// c++17 c++20 c++2b
/*
 * kvstore.hpp: what it owns and for how long, what it throws, and that all of the interface can be reached.
 */
#include "kvstore.hpp"
/* Twice is once. */
#include "kvstore.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#if __cplusplus >= 202002L
#include <ranges>
#include <span>
#endif

namespace {

using std::string;
using namespace std::string_view_literals;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) throw std::logic_error(string(__FILE__ ":") + std::to_string(__LINE__) + ": " #condition); \
    } while (0)

/* What a call throws. */
template <class Call> std::error_code thrown_by(Call call) {
    try {
        call();
    } catch (const kv::error &error) {
        CHECK(*error.what() != '\0');
        return error.code();
    }
    return {};
}

template <class T> constexpr bool is_handle =
    std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> &&
    std::is_nothrow_destructible_v<T> && !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
static_assert(is_handle<kv::store> && is_handle<kv::batch> && is_handle<kv::snapshot> && is_handle<kv::scan> &&
              is_handle<kv::options> && is_handle<kv::report>);
static_assert(std::is_nothrow_copy_constructible_v<kv::error>, "as exceptions must be");

void bytes_of_all_kinds(kv::store &db) {
    const char *text = "text";
    const std::vector<unsigned char> vector = {0, 255};
    const std::array<std::byte, 2> array = {std::byte{1}, std::byte{2}};
    db.set(text, "literal");
    db.set(string("string"), "view\0inside"sv);
    db.set(vector, array);
    db.set(kv::bytes(vector.data(), 1), kv::bytes());
    CHECK(db.get("text") == "literal");
    CHECK(db.get("string"sv) == string("view\0inside", 11));
    CHECK(db.get(vector) == "\x01\x02");
    CHECK(db.get("\0"sv) == "");
#if __cplusplus >= 202002L
    CHECK(db.get(std::span(vector)) == "\x01\x02");
#endif
}

void values(kv::store &db) {
    string value = "left over";
    CHECK(!db.get("none") && !db.get("none", value) && value.empty());
    const string large(100000, 'x');
    db.set("large", large);
    CHECK(db.get("large") == large);
    CHECK(db.get("large", value) && value == large);
    db.set("small", "y");
    CHECK(db.get("small", value) && value == "y");

    char buf[4];
    CHECK(db.get_into("small", buf, sizeof buf) == 1U && buf[0] == 'y');
    CHECK(db.get_into("large", buf, sizeof buf) == large.size());
    CHECK(!db.get_into("none", buf, sizeof buf));

    db.set("empty", "");
    const auto found = db.get_many({"small", "none", "empty"});
    CHECK(found.size() == 3 && found[0] == "y" && !found[1] && found[2] == "");
    CHECK(db.get_many(std::vector<string>{"large"}).front() == large);
    CHECK(db.get_many(std::vector<string>()).empty());

    CHECK(db.contains("small") && db.erase("small") && !db.erase("small") && !db.contains("small"));
}

void batches_and_conditions(kv::store &db) {
    kv::batch batch;
    CHECK(batch.empty());
    batch.set("a", "1").set("b", "2").erase("a");
    CHECK(batch.size() == 3);
    db.write(batch);
    CHECK(!db.contains("a") && db.get("b") == "2");

    batch.clear();
    batch.require("b", "2").require_absent("a").set("a", "3");
    CHECK(db.try_write(batch));
    CHECK(!db.try_write(batch) && db.get("a") == "3");
    CHECK(thrown_by([&] { db.write(batch); }) == KV_CONFLICT);

    CHECK(db.set_if_absent("c", "4") && !db.set_if_absent("c", "5") && db.get("c") == "4");
    CHECK(db.replace_if("c", "4", "6") && !db.replace_if("c", "4", "7") && db.get("c") == "6");
}

void scans(kv::store &db) {
    db.set("k1", "one");
    db.set("k2", "two");
    db.set("k3", "");
    db.set("l1", "other");

    string seen;
    for (const auto &[key, value] : db.scan().prefix("k").sorted()) seen += string(key) + "=" + string(value) + ";";
    CHECK(seen == "k1=one;k2=two;k3=;");

    seen.clear();
    for (const auto &item : db.scan().range("k2", "l2").sorted().keys_only()) {
        CHECK(item.value.empty());
        seen += item.key;
    }
    CHECK(seen == "k2k3l1");

    kv::scan everything = db.scan();
    const auto counted = std::distance(everything.begin(), everything.end());
    CHECK(static_cast<uint64_t>(counted) == db.stats().keys);
    CHECK(!everything.next());

    kv::scan scan = db.scan().prefix("k").sorted();
    kv::scan moved = std::move(scan);
    CHECK(moved.next()->key == "k1");
    CHECK(thrown_by([&] { scan.next(); }) == KV_ERR_INVALID);
    CHECK(thrown_by([&] { kv::scan late = std::move(moved).sorted(); }) == KV_ERR_INVALID);
#if __cplusplus >= 202002L
    static_assert(std::input_iterator<kv::scan::iterator> && std::ranges::input_range<kv::scan>);
#endif
}

void snapshots(kv::store &db) {
    db.set("key", "before");
    std::optional<kv::snapshot> snapshot = db.snapshot();
    db.set("key", "after");
    CHECK(db.stats().snapshots == 1);
    const std::string_view before = *snapshot->get("key");
    const kv::snapshot moved = *std::move(snapshot);
    snapshot.reset();
    CHECK(before == "before" && moved.contains("key") && !moved.contains("none"));
    kv::scan scan = moved.scan().prefix("key");
    CHECK(scan.next()->value == "before");
    CHECK(thrown_by([&] { db.close(); }) == KV_ERR_BUSY);
    CHECK(db.get("key") == "after");
}

/* A store that is destroyed before what was made from it is closed by the last of them. */
void outliving_the_store(const string &path) {
    std::optional<kv::scan> scan;
    std::optional<kv::snapshot> snapshot;
    {
        kv::store db(path);
        db.set("key", "value");
        snapshot = db.snapshot();
        scan = snapshot->scan();
    }
    CHECK(thrown_by([&] { kv::store second(path); }) == KV_ERR_LOCKED);
    CHECK(snapshot->get("key") == "value");
    snapshot.reset();
    CHECK(scan->next()->key == "key");
    {
        /* Assigning lets go of the old ones in the right order too. */
        kv::store other(path + "-other");
        *scan = other.scan();
    }
    kv::store again(path);
    CHECK(again.get("key") == "value");
}

void progress_and_exceptions(kv::store &db) {
    const auto make_garbage = [&] {
        for (int i = 0; i < 100; i++) db.set("garbage", string(10000, static_cast<char>('a' + i % 26)));
    };
    uint64_t last = 0, total = 1;
    make_garbage();
    db.compact([&](uint64_t done, uint64_t all) {
        last = done;
        total = all;
        return true;
    });
    CHECK(last == total && last > 0);
    make_garbage();
    CHECK(thrown_by([&] { db.compact([](uint64_t, uint64_t) { return false; }); }) == KV_ERR_CANCELLED);
    bool caught = false;
    try {
        db.compact([](uint64_t, uint64_t) -> bool { throw std::out_of_range("mine"); });
    } catch (const std::out_of_range &error) {
        caught = error.what() == "mine"sv;
    }
    CHECK(caught);
    db.compact();
    db.sync();
    while (db.maintain(1 << 20)) {
    }
}

void checkpoints(kv::store &db, const string &dir) {
    db.set("key", "in the checkpoint");
    db.checkpoint(dir + "/first");
    db.set("key", "later");
    uint64_t calls = 0;
    db.checkpoint(dir + "/second", dir + "/first", [&](uint64_t, uint64_t) { return ++calls > 0; });
    CHECK(calls > 0);
    CHECK(kv::store(dir + "/first").get("key") == "in the checkpoint");
    CHECK(kv::store(dir + "/second").get("key") == "later");
    CHECK(thrown_by([&] { db.checkpoint(dir + "/first"); }) == KV_ERR_EXISTS);
    CHECK(thrown_by([&] { db.checkpoint(dir + "/no", {}, [](uint64_t, uint64_t) { return false; }); }) ==
          KV_ERR_CANCELLED);
}

void flip(const string &file, std::streamoff offset) {
    std::fstream log(file, std::ios::in | std::ios::out | std::ios::binary);
    const int byte = log.seekg(offset).get();
    log.seekp(offset).put(static_cast<char>(byte ^ 1));
    CHECK(log.good());
}

void reports(const string &path) {
    {
        kv::store db(path);
        db.set("key", string(1000, 'v'));
        CHECK(db.verify().empty());
    }
    const kv::report healthy = kv::verify(path);
    CHECK(healthy.empty() && healthy.totals().records == 1 && healthy.problems().empty());
    uint64_t calls = 0;
    CHECK(thrown_by([&] { kv::verify(path, [&](uint64_t, uint64_t) { return ++calls == 0; }); }) == KV_ERR_CANCELLED);

    flip(path + "/0000000001.log", 500);
    const kv::report damaged = kv::verify(path);
    CHECK(damaged.size() == 1 && damaged.totals().lost_records == 1);
    CHECK(damaged[0].file.find("0000000001.log") != string::npos && damaged[0].offset > 0 && !damaged[0].what.empty());
    CHECK(damaged.problems().front().what == damaged[0].what);
    try {
        damaged[1];
        CHECK(false);
    } catch (const std::out_of_range &) {
    }

    CHECK(kv::salvage(path, path + "-salvaged").totals().lost_records == 1);
    CHECK(!kv::store(path + "-salvaged").contains("key"));
    CHECK(thrown_by([&] { kv::verify(path + "-none"); }) == KV_ERR_NOT_A_DATABASE);
}

/* A log of the reference engine: a length, a time, a key, a value, and a record that was not finished. */
void imports(kv::store &db, const string &file) {
    const auto number = [](uint64_t n) { return string(reinterpret_cast<const char *>(&n), sizeof n); };
    const string entry = number(1700000000000) + number(3) + "old" + "\1" + number(5) + "value";
    std::ofstream(file, std::ios::binary) << number(entry.size()) << entry << number(entry.size()) << "torn";
    const kv::report report = db.import_log(file);
    CHECK(report.size() == 1 && report.totals().written_records == 1 && db.get("old") == "value");
    std::ofstream(file, std::ios::binary) << "this is no log of any engine at all, but a text";
    CHECK(thrown_by([&] { db.import_log(file); }) == KV_ERR_FORMAT);
}

void errors(kv::store &db, const string &path) {
    const auto too_large = thrown_by([&] { db.set(string(70000, 'k'), ""); });
    CHECK(too_large == KV_ERR_TOO_LARGE && too_large.category().name() == "kvstore"sv);
    CHECK(too_large.message() == kv_strerror(KV_ERR_TOO_LARGE));
    CHECK(thrown_by([&] { kv::store second(path); }) == std::errc::device_or_resource_busy);
    CHECK(thrown_by([&] { kv::store(path + "-none", kv::options().create_if_missing(false)); }) ==
          KV_ERR_NOT_A_DATABASE);
    CHECK(thrown_by([] { kv::options().garbage_ratio(101); }) == std::errc::invalid_argument);
    try {
        db.set(string(70000, 'k'), "");
        CHECK(false);
    } catch (const std::system_error &error) {
        CHECK(string(error.what()).find("70000") != string::npos);
    }
}

void closing(const string &path) {
    kv::store db(path, kv::options()
                           .compact_threshold(1 << 20)
                           .garbage_ratio(60)
                           .segment_size(1 << 20)
                           .sync(KV_SYNC_INTERVAL)
                           .sync_interval(std::chrono::seconds(1))
                           .io(KV_IO_SYSCALL)
                           .background(false)
                           .verify_reads(true));
    CHECK(db.recovery_info().clean == 1 && db.stats().mapped == 0);
    db.set("key", "value");
    kv::store moved = std::move(db);
    CHECK(thrown_by([&] { db.get("key"); }) == KV_ERR_INVALID);
    CHECK(thrown_by([&] { db.scan(); }) == KV_ERR_INVALID);
    db.close();
    moved.close();
    moved.close();
    CHECK(moved.native() == nullptr && thrown_by([&] { moved.set("key", "value"); }) == KV_ERR_INVALID);
    moved = kv::store(path, kv::options().read_only(true));
    CHECK(moved.get("key") == "value");
    CHECK(thrown_by([&] { moved.set("key", "new"); }) == KV_ERR_READ_ONLY);
}

void run(const string &directory) {
    {
        const string path = directory + "/db";
        kv::store db(path);
        bytes_of_all_kinds(db);
        values(db);
        batches_and_conditions(db);
        scans(db);
        snapshots(db);
        progress_and_exceptions(db);
        checkpoints(db, directory);
        imports(db, directory + "/old.log");
        errors(db, path);
        db.close();
    }
    outliving_the_store(directory + "/outlived");
    closing(directory + "/closing");
    reports(directory + "/reports");
}

} // namespace

int main(int, char **argv) {
    try {
        run(argv[1]);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "failed: %s\n", error.what());
        return 1;
    }
    return 0;
}
