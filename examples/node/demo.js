// kvstore from Node: the tour that every folder of examples/ makes in its language. First: npm install
'use strict';

const kvstore = require('./kvstore');

function show(db, key) {
  const value = db.get(key);
  if (value === undefined) {
    console.log(`${key}: not found`);
  } else if (value.length === 0) {
    console.log(`${key}: 0 bytes`);
  } else {
    console.log(`${key} = ${value}`);
  }
}

function binaryKey(db) {
  const key = Buffer.from([0x00, 0xff, 0x0a]);
  db.set(key, 'binary');
  console.log(`${key.toString('hex')} = ${db.get(key)}`);
}

function users(db) {
  const batch = new kvstore.Batch(); // all of it is written, or nothing
  try {
    batch.set('user:grace', '1906').set('user:ada', '1815').set('user:alan', '1912');
    db.write(batch);
    console.log(`batch of ${batch.size} written`);
  } finally {
    batch.close();
  }

  if (!db.setIfAbsent('user:ada', '2024')) console.log('ada is taken');

  for (const [key, value] of db.scan({ prefix: 'user:', sort: true })) console.log(`${key} = ${value}`);
}

function provokeAnError(db) {
  try {
    db.set(Buffer.alloc(70000), '');
  } catch (error) {
    if (!(error instanceof kvstore.KvError)) throw error;
    console.log(`error ${error.code}: ${error.message}`);
  }
}

const db = kvstore.open(process.argv[2] ?? 'demo.db');
try {
  db.set('greeting', 'hello');
  show(db, 'greeting');
  show(db, 'nothing');
  db.set('empty', '');
  show(db, 'empty');
  binaryKey(db);
  users(db);
  provokeAnError(db);
} finally {
  db.close();
}
console.log('closed');
