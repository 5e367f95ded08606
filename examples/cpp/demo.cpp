// kvstore from C++17: the tour that every folder of examples/ makes in its language.
//
//     c++ -std=c++17 demo.cpp -o demo $(pkg-config --cflags --libs kvstore)

#include <array>
#include <iomanip>
#include <iostream>
#include <string>

#include <kvstore.hpp>

namespace {

void show(const kv::store &db, const std::string &key) {
    if (const auto value = db.get(key); !value) {
        std::cout << key << ": not found\n";
    } else if (value->empty()) {
        std::cout << key << ": 0 bytes\n";
    } else {
        std::cout << key << " = " << *value << '\n';
    }
}

void binary_key(kv::store &db) {
    const std::array<unsigned char, 3> key = {0x00, 0xff, 0x0a};
    db.set(key, "binary");
    for (unsigned byte : key) std::cout << std::hex << std::setw(2) << std::setfill('0') << byte;
    std::cout << std::dec << " = " << db.get(key).value() << '\n';
}

void users(kv::store &db) {
    kv::batch batch; // all of it is written, or nothing
    batch.set("user:grace", "1906").set("user:ada", "1815").set("user:alan", "1912");
    db.write(batch);
    std::cout << "batch of " << batch.size() << " written\n";

    if (!db.set_if_absent("user:ada", "2024")) std::cout << "ada is taken\n";

    for (const auto &[key, value] : db.scan().prefix("user:").sorted()) {
        std::cout << key << " = " << value << '\n';
    }
}

void provoke_an_error(kv::store &db) {
    try {
        db.set(std::string(70000, '\0'), "");
    } catch (const kv::error &error) {
        std::cout << "error " << error.code().value() << ": " << error.what() << '\n';
    }
}

} // namespace

int main(int argc, char **argv) try {
    kv::store db(argc > 1 ? argv[1] : "demo.db");
    db.set("greeting", "hello");
    show(db, "greeting");
    show(db, "nothing");
    db.set("empty", "");
    show(db, "empty");
    binary_key(db);
    users(db);
    provoke_an_error(db);
    db.close(); // the destructor would do, but drop errors
    std::cout << "closed\n";
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
