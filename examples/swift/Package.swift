// swift-tools-version:5.5
// swift run demo, with kvstore installed where pkg-config finds it.
import PackageDescription

let package = Package(
    name: "kvstore-demo",
    products: [.library(name: "KVStore", targets: ["KVStore"])],
    targets: [
        .systemLibrary(name: "CKVStore", pkgConfig: "kvstore"),
        .target(name: "KVStore", dependencies: ["CKVStore"]),
        .executableTarget(name: "demo", dependencies: ["KVStore"], path: "Sources/Demo"),
    ]
)
