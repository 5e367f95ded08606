/*
 * The header in C++: handles owned by unique_ptr, values as std::string, and errors as exceptions, in a few lines.
 */
#include "kvstore.h"
/* Twice is once. */
#include "kvstore.h"

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace {

struct Close {
    void operator()(kv_store *store) const { kv_close(store); }
};
struct Free {
    void operator()(uint8_t *value) const { kv_free_buf(value); }
};

int32_t check(int32_t status) {
    if (status >= 0) return status;
    std::string message(kv_last_error(nullptr, 0), '\0');
    kv_last_error(&message[0], message.size() + 1);
    throw std::runtime_error(message);
}

const uint8_t *bytes(const std::string &text) {
    return reinterpret_cast<const uint8_t *>(text.data());
}

class Store {
public:
    explicit Store(const std::string &path) {
        kv_store *store;
        check(kv_open(path.c_str(), nullptr, &store));
        store_.reset(store);
    }
    void set(const std::string &key, const std::string &value) {
        check(kv_set(store_.get(), bytes(key), key.size(), bytes(value), value.size()));
    }
    bool get(const std::string &key, std::string &value) {
        uint8_t *data;
        size_t len;
        if (check(kv_get(store_.get(), bytes(key), key.size(), &data, &len)) == KV_NOT_FOUND) return false;
        std::unique_ptr<uint8_t, Free> owner(data);
        value.assign(reinterpret_cast<char *>(data), len);
        return true;
    }
    bool del(const std::string &key) { return check(kv_del(store_.get(), bytes(key), key.size())) == KV_OK; }
    struct kv_stats stats() {
        struct kv_stats stats;
        check(kv_stats(store_.get(), &stats, sizeof stats));
        return stats;
    }

private:
    std::unique_ptr<kv_store, Close> store_;
};

void require(bool condition, const char *what) {
    if (!condition) throw std::logic_error(what);
}

const char *describe(int32_t status) {
    /* The codes work in a switch, and the compiler knows them all. */
    switch (static_cast<kv_status>(status)) {
    case KV_OK: return "ok";
    case KV_NOT_FOUND: return "not found";
    default: return "something else";
    }
}

void run(const std::string &directory) {
    const std::string binary("a\0b\xff", 4);
    std::string value("untouched");
    {
        Store store(directory + "/db");
        store.set("key", binary);
        store.set("", "");
        require(store.get("key", value) && value == binary, "a binary value comes back");
        require(store.get("", value) && value.empty(), "the empty value is found");
        require(!store.get("none", value), "an absent key is not found");
        require(store.stats().keys == 2, "two keys");
        bool refused = false;
        try {
            Store second(directory + "/db");
        } catch (const std::runtime_error &error) {
            refused = *error.what() != '\0';
        }
        require(refused, "the second open is refused with a message");
    }
    Store store(directory + "/db");
    require(store.get("key", value) && value == binary, "the value is there after reopening");
    require(store.del("key") && !store.del("key"), "deleting says whether it was there");
    require(std::string(describe(KV_NOT_FOUND)) == "not found", "codes are constants");
    static_assert(std::is_same<decltype(kv_sync(nullptr)), int32_t>::value, "functions return int32_t");
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
