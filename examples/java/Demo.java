import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Optional;

/**
 * kvstore from Java: the tour that every folder of examples/ makes in its language.
 *
 * <pre>
 * javac -cp jna.jar *.java
 * java -cp jna.jar:. Demo
 * </pre>
 */
public final class Demo {
    static byte[] bytes(String text) {
        return text.getBytes(UTF_8);
    }

    static void show(KVStore db, String key) {
        Optional<byte[]> value = db.get(bytes(key));
        if (value.isEmpty()) {
            System.out.println(key + ": not found");
        } else if (value.get().length == 0) {
            System.out.println(key + ": 0 bytes");
        } else {
            System.out.println(key + " = " + new String(value.get(), UTF_8));
        }
    }

    static void binaryKey(KVStore db) {
        byte[] key = {0x00, (byte) 0xff, 0x0a};
        db.set(key, bytes("binary"));
        for (byte b : key) System.out.printf("%02x", b);
        System.out.println(" = " + new String(db.get(key).orElseThrow(), UTF_8));
    }

    static void users(KVStore db) {
        try (var batch = new KVStore.Batch()) { // all of it is written, or nothing
            batch.set(bytes("user:grace"), bytes("1906"))
                .set(bytes("user:ada"), bytes("1815"))
                .set(bytes("user:alan"), bytes("1912"));
            db.write(batch);
            System.out.println("batch of " + batch.size() + " written");
        }

        if (!db.setIfAbsent(bytes("user:ada"), bytes("2024"))) System.out.println("ada is taken");

        try (var scan = db.scan(bytes("user:"))) {
            for (var item : scan) {
                System.out.println(new String(item.key, UTF_8) + " = " + new String(item.value, UTF_8));
            }
        }
    }

    static void provokeAnError(KVStore db) {
        try {
            db.set(new byte[70000], new byte[0]);
        } catch (KVStore.Failure failure) {
            System.out.println("error " + failure.code + ": " + failure.getMessage());
        }
    }

    public static void main(String[] args) {
        try (var db = new KVStore(args.length > 0 ? args[0] : "demo.db")) {
            db.set(bytes("greeting"), bytes("hello"));
            show(db, "greeting");
            show(db, "nothing");
            db.set(bytes("empty"), new byte[0]);
            show(db, "empty");
            binaryKey(db);
            users(db);
            provokeAnError(db);
        }
        System.out.println("closed");
    }
}
