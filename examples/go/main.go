// kvstore from Go: the tour that every folder of examples/ makes in its language.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"

	"kvdemo/kvstore"
)

func main() {
	path := "demo.db"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	if err := tour(path); err != nil {
		log.Fatal(err)
	}
	fmt.Println("closed")
}

func tour(path string) (err error) {
	db, err := kvstore.Open(path)
	if err != nil {
		return err
	}
	defer func() {
		if closing := db.Close(); err == nil {
			err = closing
		}
	}()
	if err := db.Set([]byte("greeting"), []byte("hello")); err != nil {
		return err
	}
	if err := db.Set([]byte("empty"), nil); err != nil {
		return err
	}
	for _, key := range []string{"greeting", "nothing", "empty"} {
		if err := show(db, key); err != nil {
			return err
		}
	}
	if err := binaryKey(db); err != nil {
		return err
	}
	if err := users(db); err != nil {
		return err
	}
	provokeAnError(db)
	return nil
}

func show(db *kvstore.DB, key string) error {
	value, err := db.Get([]byte(key))
	switch {
	case errors.Is(err, kvstore.ErrNotFound):
		fmt.Printf("%s: not found\n", key)
	case err != nil:
		return err
	case len(value) == 0:
		fmt.Printf("%s: 0 bytes\n", key)
	default:
		fmt.Printf("%s = %s\n", key, value)
	}
	return nil
}

func binaryKey(db *kvstore.DB) error {
	key := []byte{0x00, 0xff, 0x0a}
	if err := db.Set(key, []byte("binary")); err != nil {
		return err
	}
	value, err := db.Get(key)
	if err != nil {
		return err
	}
	fmt.Printf("%x = %s\n", key, value)
	return nil
}

func users(db *kvstore.DB) error {
	batch, err := kvstore.NewBatch() // all of it is written, or nothing
	if err != nil {
		return err
	}
	defer batch.Close()
	for name, born := range map[string]string{"grace": "1906", "ada": "1815", "alan": "1912"} {
		if err := batch.Set([]byte("user:"+name), []byte(born)); err != nil {
			return err
		}
	}
	if err := db.Write(batch); err != nil {
		return err
	}
	fmt.Printf("batch of %d written\n", batch.Len())

	err = db.SetIfAbsent([]byte("user:ada"), []byte("2024"))
	if errors.Is(err, kvstore.ErrConflict) {
		fmt.Println("ada is taken")
	} else if err != nil {
		return err
	}

	it, err := db.Iterate(kvstore.Scan{Prefix: []byte("user:"), Sorted: true})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.Next() {
		fmt.Printf("%s = %s\n", it.Key(), it.Value())
	}
	return it.Err()
}

func provokeAnError(db *kvstore.DB) {
	var failure *kvstore.Error
	if errors.As(db.Set(make([]byte, 70000), nil), &failure) {
		fmt.Printf("error %d: %s\n", failure.Code, failure.Message)
	}
}
