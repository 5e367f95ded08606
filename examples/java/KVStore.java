import com.sun.jna.Library;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;

/**
 * kvstore, an embedded key-value store, by JNA. The library is found by -Djna.library.path, or where the system
 * finds it.
 *
 * <p>Keys and values are arrays of bytes, copied on the way in and out. A KVStore may be used by any number of threads,
 * a Batch and a Scan by one. Lengths are size_t, a long on the 64-bit systems that the library is made for.
 */
public final class KVStore implements AutoCloseable {
    static final int OK = 0, NOT_FOUND = 1, DONE = 2, CONFLICT = 3, BUSY = -6, BUFFER_TOO_SMALL = -10;

    /** As in kvstore.h. */
    interface Lib extends Library {
        Lib INSTANCE = Native.load("kvstore", Lib.class);

        long kv_last_error(byte[] buf, long cap);
        int kv_open(String path, Pointer options, PointerByReference store);
        int kv_close(Pointer store);
        int kv_set(Pointer store, byte[] key, long keyLen, byte[] value, long valueLen);
        int kv_get(Pointer store, byte[] key, long keyLen, PointerByReference value, LongByReference valueLen);
        void kv_free_buf(Pointer value);
        int kv_del(Pointer store, byte[] key, long keyLen);
        int kv_sync(Pointer store);
        int kv_set_if_absent(Pointer store, byte[] key, long keyLen, byte[] value, long valueLen);
        int kv_replace_if(Pointer store, byte[] key, long keyLen, byte[] expected, long expectedLen,
                          byte[] value, long valueLen);
        int kv_batch_new(PointerByReference batch);
        int kv_batch_set(Pointer batch, byte[] key, long keyLen, byte[] value, long valueLen);
        int kv_batch_del(Pointer batch, byte[] key, long keyLen);
        int kv_batch_require(Pointer batch, byte[] key, long keyLen, byte[] expected, long expectedLen);
        int kv_batch_require_absent(Pointer batch, byte[] key, long keyLen);
        long kv_batch_len(Pointer batch);
        void kv_batch_free(Pointer batch);
        int kv_write(Pointer store, Pointer batch);
        int kv_iter_new(Pointer store, PointerByReference iter);
        int kv_iter_sort(Pointer iter);
        int kv_iter_prefix(Pointer iter, byte[] prefix, long prefixLen);
        int kv_iter_fill(Pointer iter, byte[] buf, long cap, LongByReference used, LongByReference count);
        void kv_iter_free(Pointer iter);
    }

    static final Lib LIB = Lib.INSTANCE;

    /** A call failed. The code is a negative value of kv_status. */
    public static final class Failure extends RuntimeException {
        private static final long serialVersionUID = 1;
        public final int code;

        Failure(int code, String message) {
            super(message);
            this.code = code;
        }
    }

    static int check(int status) {
        if (status >= 0) return status;
        byte[] message = new byte[(int) LIB.kv_last_error(null, 0) + 1];
        LIB.kv_last_error(message, message.length);
        throw new Failure(status, new String(message, 0, message.length - 1, StandardCharsets.UTF_8));
    }

    private Pointer handle;

    /** Opens the database in a directory, and creates it if there is none. */
    public KVStore(String path) {
        PointerByReference store = new PointerByReference();
        check(LIB.kv_open(path, null, store));
        handle = store.getValue();
    }

    /** Syncs and closes. Fails with code -6 (busy), and stays open, while there are scans. Closing twice is fine. */
    @Override
    public void close() {
        int status = LIB.kv_close(handle);
        if (status != BUSY) handle = null;
        check(status);
    }

    public void set(byte[] key, byte[] value) {
        check(LIB.kv_set(handle, key, key.length, value, value.length));
    }

    public Optional<byte[]> get(byte[] key) {
        PointerByReference value = new PointerByReference();
        LongByReference length = new LongByReference();
        if (check(LIB.kv_get(handle, key, key.length, value, length)) == NOT_FOUND) return Optional.empty();
        try {
            return Optional.of(value.getValue().getByteArray(0, (int) length.getValue()));
        } finally {
            LIB.kv_free_buf(value.getValue());
        }
    }

    /** Returns whether it was there. */
    public boolean delete(byte[] key) {
        return check(LIB.kv_del(handle, key, key.length)) == OK;
    }

    /** Returns whether it was written. */
    public boolean setIfAbsent(byte[] key, byte[] value) {
        return check(LIB.kv_set_if_absent(handle, key, key.length, value, value.length)) == OK;
    }

    /** Returns whether the key had the value expected, and now has the new one. */
    public boolean replaceIf(byte[] key, byte[] expected, byte[] value) {
        return check(LIB.kv_replace_if(handle, key, key.length, expected, expected.length, value, value.length)) == OK;
    }

    /** Makes everything acknowledged so far survive power loss. */
    public void sync() {
        check(LIB.kv_sync(handle));
    }

    /** Writes a batch, all of it or nothing. Returns false if one of its conditions does not hold. */
    public boolean write(Batch batch) {
        return check(LIB.kv_write(handle, batch.handle)) == OK;
    }

    /** Goes through the keys with a prefix as they are now, ascending by their bytes. */
    public Scan scan(byte[] prefix) {
        return new Scan(handle, prefix);
    }

    /** Changes that are written together, and conditions on them. */
    public static final class Batch implements AutoCloseable {
        private Pointer handle;

        public Batch() {
            PointerByReference batch = new PointerByReference();
            check(LIB.kv_batch_new(batch));
            handle = batch.getValue();
        }

        public Batch set(byte[] key, byte[] value) {
            check(LIB.kv_batch_set(handle, key, key.length, value, value.length));
            return this;
        }

        public Batch delete(byte[] key) {
            check(LIB.kv_batch_del(handle, key, key.length));
            return this;
        }

        public Batch require(byte[] key, byte[] expected) {
            check(LIB.kv_batch_require(handle, key, key.length, expected, expected.length));
            return this;
        }

        public Batch requireAbsent(byte[] key) {
            check(LIB.kv_batch_require_absent(handle, key, key.length));
            return this;
        }

        public long size() {
            return LIB.kv_batch_len(handle);
        }

        @Override
        public void close() {
            LIB.kv_batch_free(handle);
            handle = null;
        }
    }

    public static final class Item {
        public final byte[] key, value;

        Item(byte[] key, byte[] value) {
            this.key = key;
            this.value = value;
        }
    }

    /** Fetches many items by one call, packed into a buffer. To be gone through once. */
    public static final class Scan implements Iterable<Item>, Iterator<Item>, AutoCloseable {
        private Pointer handle;
        private byte[] buf = new byte[65536];
        private ByteBuffer rest = ByteBuffer.allocate(0);

        Scan(Pointer store, byte[] prefix) {
            PointerByReference iter = new PointerByReference();
            check(LIB.kv_iter_new(store, iter));
            handle = iter.getValue();
            try {
                check(LIB.kv_iter_prefix(handle, prefix, prefix.length));
                check(LIB.kv_iter_sort(handle));
            } catch (Failure failure) {
                close();
                throw failure;
            }
        }

        @Override
        public Iterator<Item> iterator() {
            return this;
        }

        @Override
        public boolean hasNext() {
            return rest.hasRemaining() || fill();
        }

        private boolean fill() {
            LongByReference used = new LongByReference(), count = new LongByReference();
            int status = LIB.kv_iter_fill(handle, buf, buf.length, used, count);
            if (status == BUFFER_TOO_SMALL) {
                buf = new byte[Math.toIntExact(used.getValue())];
                return fill();
            }
            rest = ByteBuffer.wrap(buf, 0, (int) used.getValue()).order(ByteOrder.LITTLE_ENDIAN);
            return check(status) != DONE;
        }

        @Override
        public Item next() {
            if (!hasNext()) throw new NoSuchElementException();
            byte[] key = new byte[rest.getInt()], value = new byte[rest.getInt()];
            rest.get(key).get(value);
            return new Item(key, value);
        }

        @Override
        public void close() {
            LIB.kv_iter_free(handle);
            handle = null;
        }
    }
}
