"""LlamaIndex's ingestion pipeline into its PostgreSQL vector store.

    python -m tools.peers.llamaindex_peer FOLDER URL DATABASE_URL

One node a text, named by its hash; a document store (a file, LlamaIndex's own) knows what is there. README.md
says why it is configured as it is.
"""

from __future__ import annotations

import asyncio
import time

from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.vector_stores.postgres import PGVectorStore
from sqlalchemy.engine import make_url

from era_ingest.bench.reading import read_rows
from tools.peers.common import Job, parse_job, tell


def build_nodes(job: Job) -> list[TextNode]:
    """Return a node a text, named by its hash."""
    nodes = []
    for digest, book, chapter, category, text in read_rows(job.folder).values():
        name = digest.hex()
        metadata = {"book": book, "chapter": chapter, "category": category}
        keys = list(metadata)
        node = TextNode(
            id_=name,
            text=text,
            metadata=metadata,
            excluded_embed_metadata_keys=keys,
            excluded_llm_metadata_keys=keys,
        )
        nodes.append(node)
    return nodes


def build_store(job: Job) -> PGVectorStore:
    """Return the vector store, without an ANN index."""
    url = make_url(job.database_url)
    return PGVectorStore(
        connection_string=url.set(drivername="postgresql+psycopg2"),
        async_connection_string=url.set(drivername="postgresql+asyncpg"),
        table_name="texts",
        embed_dim=job.dimensions,
    )


async def remove_gone(nodes: list[TextNode], docstore: SimpleDocumentStore, store: PGVectorStore) -> None:
    """Delete what the folder no longer holds, in one statement (UPSERTS_AND_DELETE would take one for each)."""
    known = set((await docstore.aget_all_document_hashes()).values())
    if gone := known - {node.node_id for node in nodes}:
        await store.adelete_nodes(list(gone))
        for name in gone:
            await docstore.adelete_document(name, raise_error=False)


async def run(job: Job) -> int:
    """Do the work; return how many texts were embedded."""
    docstore_file = job.state / "docstore.json"
    docstore = (
        SimpleDocumentStore.from_persist_path(str(docstore_file))
        if docstore_file.exists()
        else SimpleDocumentStore()
    )
    store = build_store(job)
    embedding = OpenAILikeEmbedding(
        model_name="bench",
        api_base=f"{job.server_url}/v1",
        api_key="none",
        embed_batch_size=job.batch,
        num_workers=job.in_flight,
    )
    pipeline = IngestionPipeline(
        transformations=[embedding],
        vector_store=store,
        docstore=docstore,
        docstore_strategy=DocstoreStrategy.UPSERTS,
        disable_cache=True,
    )
    await store.async_add([])  # makes the table, also from an empty folder
    nodes = build_nodes(job)
    await remove_gone(nodes, docstore, store)
    done = await pipeline.arun(nodes=nodes, store_doc_text=False)
    docstore.persist(str(docstore_file))
    await store.close()
    return len(done)


def main() -> None:
    """Run once."""
    job = parse_job()
    started = time.perf_counter()
    texts = asyncio.run(run(job))
    tell(texts, time.perf_counter() - started)


if __name__ == "__main__":
    main()
