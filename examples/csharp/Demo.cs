// kvstore from C#: the tour that every folder of examples/ makes in its language.
//
//     dotnet run         or         mcs -out:demo.exe *.cs && mono demo.exe
using System;
using System.Text;
using KVStore;

internal static class Demo
{
    private static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);
    private static string Text(byte[] bytes) => Encoding.UTF8.GetString(bytes);

    private static void Show(Store db, string key)
    {
        byte[] value = db.Get(Bytes(key));
        if (value == null) Console.WriteLine($"{key}: not found");
        else if (value.Length == 0) Console.WriteLine($"{key}: 0 bytes");
        else Console.WriteLine($"{key} = {Text(value)}");
    }

    private static void BinaryKey(Store db)
    {
        byte[] key = { 0x00, 0xff, 0x0a };
        db.Set(key, Bytes("binary"));
        string hex = BitConverter.ToString(key).Replace("-", "").ToLowerInvariant();
        Console.WriteLine($"{hex} = {Text(db.Get(key))}");
    }

    private static void Users(Store db)
    {
        using (var batch = new Batch()) // all of it is written, or nothing
        {
            batch.Set(Bytes("user:grace"), Bytes("1906"))
                .Set(Bytes("user:ada"), Bytes("1815"))
                .Set(Bytes("user:alan"), Bytes("1912"));
            db.Write(batch);
            Console.WriteLine($"batch of {batch.Count} written");
        }

        if (!db.SetIfAbsent(Bytes("user:ada"), Bytes("2024"))) Console.WriteLine("ada is taken");

        foreach (var item in db.Scan(Bytes("user:"))) Console.WriteLine($"{Text(item.Key)} = {Text(item.Value)}");
    }

    private static void ProvokeAnError(Store db)
    {
        try
        {
            db.Set(new byte[70000], new byte[0]);
        }
        catch (KVException failure)
        {
            Console.WriteLine($"error {failure.Code}: {failure.Message}");
        }
    }

    private static void Main(string[] args)
    {
        using (var db = new Store(args.Length > 0 ? args[0] : "demo.db"))
        {
            db.Set(Bytes("greeting"), Bytes("hello"));
            Show(db, "greeting");
            Show(db, "nothing");
            db.Set(Bytes("empty"), new byte[0]);
            Show(db, "empty");
            BinaryKey(db);
            Users(db);
            ProvokeAnError(db);
        }
        Console.WriteLine("closed");
    }
}
