using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

/// <summary>
/// kvstore, an embedded key-value store, by P/Invoke: C# 7 and later, .NET and Mono. Every signature is blittable, so
/// with .NET 7 and later [LibraryImport] and `static partial` do as well as [DllImport] and `static extern`.
/// Keys and values are arrays of bytes, copied on the way in and out. A Store may be used by any number of threads, a
/// Batch and a scan by one.
/// </summary>
namespace KVStore
{
    /// <summary>A call failed. The code is a negative value of kv_status.</summary>
    public sealed class KVException : Exception
    {
        public int Code { get; }

        internal KVException(int code, string message) : base(message) { Code = code; }
    }

    internal static class Native
    {
        internal const int OK = 0, NotFound = 1, Done = 2, Conflict = 3, Busy = -6, BufferTooSmall = -10;
        private const string Library = "kvstore";

        [DllImport(Library)] internal static extern UIntPtr kv_last_error(byte[] buf, UIntPtr cap);
        [DllImport(Library)] internal static extern int kv_open(byte[] path, IntPtr options, out IntPtr store);
        [DllImport(Library)] internal static extern int kv_close(IntPtr store);
        [DllImport(Library)] internal static extern int kv_set(IntPtr store, byte[] key, UIntPtr keyLen, byte[] value, UIntPtr valueLen);
        [DllImport(Library)] internal static extern int kv_get(IntPtr store, byte[] key, UIntPtr keyLen, out IntPtr value, out UIntPtr valueLen);
        [DllImport(Library)] internal static extern void kv_free_buf(IntPtr value);
        [DllImport(Library)] internal static extern int kv_del(IntPtr store, byte[] key, UIntPtr keyLen);
        [DllImport(Library)] internal static extern int kv_sync(IntPtr store);
        [DllImport(Library)] internal static extern int kv_set_if_absent(IntPtr store, byte[] key, UIntPtr keyLen, byte[] value, UIntPtr valueLen);
        [DllImport(Library)] internal static extern int kv_batch_new(out IntPtr batch);
        [DllImport(Library)] internal static extern int kv_batch_set(IntPtr batch, byte[] key, UIntPtr keyLen, byte[] value, UIntPtr valueLen);
        [DllImport(Library)] internal static extern int kv_batch_del(IntPtr batch, byte[] key, UIntPtr keyLen);
        [DllImport(Library)] internal static extern int kv_batch_require_absent(IntPtr batch, byte[] key, UIntPtr keyLen);
        [DllImport(Library)] internal static extern UIntPtr kv_batch_len(IntPtr batch);
        [DllImport(Library)] internal static extern void kv_batch_free(IntPtr batch);
        [DllImport(Library)] internal static extern int kv_write(IntPtr store, IntPtr batch);
        [DllImport(Library)] internal static extern int kv_iter_new(IntPtr store, out IntPtr iter);
        [DllImport(Library)] internal static extern int kv_iter_sort(IntPtr iter);
        [DllImport(Library)] internal static extern int kv_iter_prefix(IntPtr iter, byte[] prefix, UIntPtr prefixLen);
        [DllImport(Library)] internal static extern int kv_iter_fill(IntPtr iter, [Out] byte[] buf, UIntPtr cap, out UIntPtr used, out UIntPtr count);
        [DllImport(Library)] internal static extern void kv_iter_free(IntPtr iter);

        internal static UIntPtr Length(this byte[] bytes) => (UIntPtr)bytes.Length;

        /// <summary>Passes on what is no error. The message is kept for each thread, so it is fetched at once.</summary>
        internal static int Check(int status)
        {
            if (status >= 0) return status;
            var message = new byte[(int)kv_last_error(null, UIntPtr.Zero) + 1];
            kv_last_error(message, message.Length());
            throw new KVException(status, Encoding.UTF8.GetString(message, 0, message.Length - 1));
        }
    }

    /// <summary>An open database.</summary>
    public sealed class Store : IDisposable
    {
        private IntPtr handle;

        /// <summary>Opens the database in a directory, and creates it if there is none.</summary>
        public Store(string path)
        {
            Native.Check(Native.kv_open(Encoding.UTF8.GetBytes(path + "\0"), IntPtr.Zero, out handle));
        }

        /// <summary>Syncs and closes. Fails with code -6 (busy), and stays open, while a scan is unfinished.</summary>
        public void Dispose()
        {
            int status = Native.kv_close(handle);
            if (status != Native.Busy) handle = IntPtr.Zero;
            Native.Check(status);
        }

        public void Set(byte[] key, byte[] value)
        {
            Native.Check(Native.kv_set(handle, key, key.Length(), value, value.Length()));
        }

        /// <summary>The value, or null.</summary>
        public byte[] Get(byte[] key)
        {
            int status = Native.kv_get(handle, key, key.Length(), out IntPtr value, out UIntPtr length);
            if (Native.Check(status) == Native.NotFound) return null;
            try
            {
                var copy = new byte[(int)length];
                Marshal.Copy(value, copy, 0, copy.Length);
                return copy;
            }
            finally
            {
                Native.kv_free_buf(value);
            }
        }

        /// <summary>Returns whether it was there.</summary>
        public bool Delete(byte[] key) => Native.Check(Native.kv_del(handle, key, key.Length())) == Native.OK;

        /// <summary>Returns whether it was written.</summary>
        public bool SetIfAbsent(byte[] key, byte[] value)
        {
            return Native.Check(Native.kv_set_if_absent(handle, key, key.Length(), value, value.Length())) == Native.OK;
        }

        /// <summary>Writes a batch, all of it or nothing. Returns false if one of its conditions does not hold.</summary>
        public bool Write(Batch batch) => Native.Check(Native.kv_write(handle, batch.Handle)) == Native.OK;

        /// <summary>Makes everything acknowledged so far survive power loss.</summary>
        public void Sync() => Native.Check(Native.kv_sync(handle));

        /// <summary>The keys with a prefix, ascending by their bytes, as they are at the first step.</summary>
        public IEnumerable<KeyValuePair<byte[], byte[]>> Scan(byte[] prefix)
        {
            Native.Check(Native.kv_iter_new(handle, out IntPtr iter));
            try
            {
                Native.Check(Native.kv_iter_prefix(iter, prefix, prefix.Length()));
                Native.Check(Native.kv_iter_sort(iter));
                // Many items for each call of the library: they come packed in one buffer.
                var buf = new byte[65536];
                while (true)
                {
                    int status = Native.kv_iter_fill(iter, buf, buf.Length(), out UIntPtr used, out _);
                    if (status == Native.BufferTooSmall)
                    {
                        buf = new byte[(int)used];
                        continue;
                    }
                    if (Native.Check(status) == Native.Done) yield break;
                    foreach (var item in Unpack(buf, (int)used)) yield return item;
                }
            }
            finally
            {
                Native.kv_iter_free(iter);
            }
        }

        private static IEnumerable<KeyValuePair<byte[], byte[]>> Unpack(byte[] packed, int used)
        {
            for (int at = 0; at < used;)
            {
                var key = new byte[BitConverter.ToInt32(packed, at)];
                var value = new byte[BitConverter.ToInt32(packed, at + 4)];
                Array.Copy(packed, at + 8, key, 0, key.Length);
                Array.Copy(packed, at + 8 + key.Length, value, 0, value.Length);
                at += 8 + key.Length + value.Length;
                yield return new KeyValuePair<byte[], byte[]>(key, value);
            }
        }
    }

    /// <summary>Changes that are written together, and conditions on them.</summary>
    public sealed class Batch : IDisposable
    {
        internal IntPtr Handle;

        public Batch() { Native.Check(Native.kv_batch_new(out Handle)); }

        public long Count => (long)Native.kv_batch_len(Handle);

        public Batch Set(byte[] key, byte[] value)
        {
            Native.Check(Native.kv_batch_set(Handle, key, key.Length(), value, value.Length()));
            return this;
        }

        public Batch Delete(byte[] key)
        {
            Native.Check(Native.kv_batch_del(Handle, key, key.Length()));
            return this;
        }

        /// <summary>The batch is written only if there is no such key.</summary>
        public Batch RequireAbsent(byte[] key)
        {
            Native.Check(Native.kv_batch_require_absent(Handle, key, key.Length()));
            return this;
        }

        public void Dispose()
        {
            Native.kv_batch_free(Handle);
            Handle = IntPtr.Zero;
        }
    }
}
